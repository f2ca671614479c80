"""The search as it happens: a live table on a terminal, a line per trial that ends elsewhere."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray.tune import Callback
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.report import format_value
from search.status import Cost, remaining
from search.study import SearchStudy, trial_name
from search.winner import best_trial
from trainable.inprocess import INFEASIBLE
from trainable.metrics import DIVERGED, EPOCH, FINISHED

_ROWS = 20


@dataclass
class _Line:
    state: str
    settings: dict[str, Any]
    epoch: int = 0
    value: float | None = None
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    earlier: float = 0.0  # seconds of its stays before this one


def _only_shows(method: Callable[..., None]) -> Callable[..., None]:
    """Tune ends the whole run where a callback raises: what cannot be shown costs a line, not the search."""

    @functools.wraps(method)
    def guarded(self: Progress, *args: Any, **info: Any) -> None:
        try:
            method(self, *args, **info)
        except Exception as error:
            self.complain(error)

    return guarded


class Progress(Callback):
    """Ray Tune callback that shows trials while they run.

    Args:
        study: The search.
        console: Where to print.
        cpus: Cores of a trial, over its workers.
        gpus: GPUs of a trial, over its workers.
    """

    def __init__(self, study: SearchStudy, console: Console, *, cpus: int = 1, gpus: float = 0.0) -> None:
        self._study, self._spec = study, study.spec
        self._console = console
        self._finished = self._before = len(study.finished())
        self._cpus, self._gpus = cpus, gpus
        self._lines: dict[int, _Line] = {}
        self._best, self._target = best_trial(study), study.target
        self._started = time.monotonic()
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(get_renderable=self._render, console=console, refresh_per_second=2)

    @_only_shows
    def setup(self, **info: Any) -> None:
        """Start the live table."""
        if self._live:
            self._live.start()

    @_only_shows
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Add the trial's line."""
        number = trial.config["number"]
        settings = {name: trial.config["config"][name] for name in self._spec.space}
        known = self._lines.get(number)
        earlier = known.earlier + known.seconds if known else 0.0
        self._lines[number] = _Line("running", settings, earlier=earlier)

    @_only_shows
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Bring the trial's line up to date."""
        line = self._lines[trial.config["number"]]
        line.seconds = time.monotonic() - line.started
        for key, state in ((INFEASIBLE, "infeasible"), (DIVERGED, "diverged"), (FINISHED, "complete")):
            if key in result:
                line.state = state
                break
        if EPOCH not in result or result.get(self._spec.search.primary) is None:
            return  # a trial that does not fit, or diverged before it was validated
        line.epoch, line.value = int(result[EPOCH]), float(result[self._spec.search.primary])
        if self._live:  # elsewhere nothing shows it before the trial ends
            self._best = best_trial(self._study)

    @_only_shows
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say how the trial ended."""
        number = trial.config["number"]
        state = self._lines[number].state
        if state == "running":
            state = "pruned" if self._study.trial(number).state.is_finished() else "paused"
        self._end(trial, state)

    @_only_shows
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that the trial's process failed, for good or to be tried again."""
        ended = self._study.trial(trial.config["number"]).state.is_finished()
        self._end(trial, "failed" if ended else "crashed")

    @_only_shows
    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Leave the last table standing."""
        self.close()

    def complain(self, error: Exception) -> None:
        """Say that something could not be shown, unless the terminal or the pipe is what is gone."""
        with contextlib.suppress(OSError):
            self._console.print(f"not shown: {type(error).__name__}: {error}", markup=False, highlight=False)

    @_only_shows
    def close(self) -> None:
        """Stop the live table, whatever happened."""
        live, self._live = self._live, None
        if live:
            live.stop()

    def _end(self, trial: Any, state: str) -> None:
        number = trial.config["number"]
        line = self._lines.get(number) or _Line("running", {})  # its process may have died before it started
        line.state, line.seconds = state, time.monotonic() - line.started
        self._finished, self._best = len(self._study.finished()), best_trial(self._study)
        if not self._live:
            value = "-" if line.value is None else f"{line.value:.4f}"
            settings = "  ".join(f"{k} {format_value(v)}" for k, v in line.settings.items())
            self._console.print(
                f"{trial_name(number)}  {state:8}  epoch {line.epoch}/{self._spec.max_epochs}  "
                f"{self._spec.search.primary} {value}  {line.seconds:.1f} s  {settings}",
                soft_wrap=True,
                highlight=False,
            )

    def _render(self) -> Group:
        table = Table()
        for column in ("trial", "state", "epoch", self._spec.search.primary, "time", *self._spec.space):
            table.add_column(column, justify="left" if column in ("trial", "state") else "right")
        for number, line in list(self._lines.items())[-_ROWS:]:
            now = time.monotonic() - line.started if line.state == "running" else line.seconds
            table.add_row(
                trial_name(number),
                line.state,
                f"{line.epoch}/{self._spec.max_epochs}",
                "" if line.value is None else f"{line.value:.4f}",
                f"{now:.0f} s",
                *(format_value(value) for value in line.settings.values()),
            )
        best = "no result yet"
        if self._best and (last := self._study.last_report(self._best.number)):
            best = f"best {last.values[0]:.4f} ({trial_name(self._best.number)}, epoch {last.epoch})"
        running = sum(line.state == "running" for line in self._lines.values())
        elapsed = time.monotonic() - self._started
        done = f"{self._finished}/{self._target} trials done, {running} running"
        missing = max(0, self._target - self._finished)
        left = remaining(self._finished - self._before, missing, elapsed)
        eta = f", about {left} left" if left is not None and missing else ""
        taken = sum(
            line.earlier + (time.monotonic() - line.started if line.state == "running" else line.seconds)
            for line in self._lines.values()
        )
        used = Cost(taken, self._cpus, self._gpus)
        return Group(table, Text(f"{done}, {best}, {elapsed:.0f} s{eta}; {used}"))

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles its callbacks into the experiment state; a console does not go along.
        return {}
