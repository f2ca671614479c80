"""Ray Tune as the conductor's hands: it starts trials where there is room, and passes their reports on.

To Tune a trial is one stay in a process. One that was paused, crashed or killed comes back as a new Tune
trial with the same number: retries, promotions and resumes go one way, and Tune's own state isn't needed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from optuna.trial import FrozenTrial
from ray import cloudpickle, tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.conductor import Conductor
from search.retention import tidy
from search.schedulers import Decision
from search.study import SearchStudy, trial_name
from trainable.atomic import StorageError
from trainable.inprocess import LOG_FILE

_LOG_LINES = 20


@dataclass
class Executor:
    """What the parts below share: the conductor, and which Tune trial runs which of its trials.

    Args:
        conductor: Who decides.
        concurrent: Trials at a time.
        threads: CPU threads of a one-worker trial.
        release: Called with a trial's folder when its process is given up, to free what Tune does not know.
    """

    conductor: Conductor
    concurrent: int
    threads: int
    release: Callable[[Path], None] = lambda folder: None
    stopping: bool = False
    """No new trials: the search was interrupted."""

    def parts(self) -> tuple[StudySearcher, StudyScheduler, Watchdog]:
        """What Ray Tune is given."""
        return StudySearcher(self), StudyScheduler(self), Watchdog(self)

    def folder(self, number: int) -> Path:
        """A trial's folder."""
        return self.conductor.study.folder / trial_name(number)


class _NotPickled:
    """Tune pickles what it is given; the study's journal is not part of that."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudySearcher(_NotPickled, Searcher):
    """Asks the conductor for trials, as many at a time as fit."""

    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self._executor = executor
        self._numbers: dict[str, int] = {}  # Tune's trial id -> the study's number

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial, nothing for now (None), or nothing any more."""
        executor = self._executor
        if executor.stopping:
            return Searcher.FINISHED
        if len(self._numbers) >= executor.concurrent:
            return None
        trial = executor.conductor.next()
        if trial is None:
            return Searcher.FINISHED if executor.conductor.finished else None
        self._numbers[trial_id] = trial.number
        return trial_payload(executor.conductor.study, trial, executor.threads)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler has passed the report on already."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The trial's stay in its process is over."""
        number = self._numbers.pop(trial_id)
        executor = self._executor
        executor.release(executor.folder(number))
        if executor.stopping:
            executor.conductor.interrupted(number)
        else:  # nothing, where the trial has ended or paused by now
            executor.conductor.crashed(number, "it returned before its last epoch")
            tidy(executor.conductor.study, number)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal is on disk already. Ray wants a file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Never called: a search resumes from its journal."""
        raise RuntimeError("a search resumes from its journal, not from Ray Tune's experiment state")


class StudyScheduler(_NotPickled, FIFOScheduler):
    """Passes reports to the conductor, and its decisions to Tune."""

    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self._executor = executor

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Let the trial go on, or end its stay in its process."""
        decision = self._executor.conductor.report(trial.config["number"], result)
        return TrialScheduler.CONTINUE if decision is Decision.CONTINUE else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Record why a trial's process failed; called before the searcher hears of it."""
        number = trial.config["number"]
        error = _error_of(trial)
        conductor = self._executor.conductor
        if _through_no_fault(error):
            conductor.interrupted(number)
        else:
            with contextlib.suppress(StorageError):  # without its last lines then
                conductor.study.place.fetch(trial_name(number))
            conductor.crashed(number, _cause(trial, error), last_lines(self._executor.folder(number)))


class Watchdog(_NotPickled, tune.Callback):
    """Kills a trial that has reported nothing for `trial_timeout` seconds, whatever it hangs in."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._timeout = executor.conductor.study.spec.search.trial_timeout
        self._news: dict[Any, float] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Start the clock."""
        self._news[trial] = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Start the clock again."""
        self._news[trial] = time.monotonic()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Stop the clock."""
        self._news.pop(trial, None)

    on_trial_error = on_trial_complete

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look at the clocks; Tune calls this ten times a second and more."""
        if self._timeout is None:
            return
        for trial, since in list(self._news.items()):
            if time.monotonic() - since > self._timeout:
                del self._news[trial]
                trial.config["timed_out"] = self._timeout
                # Killed from outside the interpreter: a hang in C code that holds Python's lock ends too.
                # Tune then sees a dead actor, as after any crash.
                ray.kill(trial.temporary_state.ray_actor)


def trial_payload(study: SearchStudy, trial: FrozenTrial, threads: int) -> dict[str, Any]:
    """What a trial's process is given."""
    config = study.config(trial).model_dump(mode="json")
    scheduler = study.spec.search.scheduler
    if scheduler.promote:
        config["checkpoint_interval"] = 1  # so that a paused trial loses nothing
    payload = {
        "number": trial.number,
        "config": config,
        **study.place.trial(trial_name(trial.number)),
        "threads": threads,
        "pausable": scheduler.promote or scheduler.type == "pbt",
    }
    if scheduler.type == "pbt":
        rounds = scheduler.perturbation_interval
        if rounds % config["checkpoint_interval"]:
            config["checkpoint_interval"] = rounds
        # A round's checkpoint is copied by others until all have gone on; each epoch since may be a best one.
        config["keep_checkpoints"] = max(config["keep_checkpoints"], rounds + 2)
        for last in study.exploits(trial.number)[-1:]:
            source, epoch = trial_name(last.data["source"]), last.data["epoch"]
            payload["inherit"] = {
                **study.place.trial(source),
                "epoch": epoch,
                "mark": f"{source}@{epoch}",
            }
    return payload


def _error_of(trial: Any) -> Any:
    """What Tune caught. Its own `get_pickled_error` looks in storage, where the file comes too late."""
    with contextlib.suppress(OSError, TypeError):
        return cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    return None


def _cause(trial: Any, error: Any) -> str:
    """One line on why a trial's process failed."""
    if "timed_out" in trial.config:
        return f"timeout: no report for {trial.config['timed_out']:g} s"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "out of memory: Ray ended the process before the machine ran out"
    if error is None or isinstance(error, ray.exceptions.RayActorError):
        return "its process died (killed, or a crash in C code)"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, ray.exceptions.RayTaskError):  # its text is the remote traceback
        return lines[-1] if lines else "an error without words"
    return ": ".join([type(error).__name__, *lines[:1]])


def _through_no_fault(error: Any) -> bool:
    """Whether the machine went away, rather than the trial's process."""
    return isinstance(error, ray.exceptions.RayActorError) and (
        error.preempted or "its node has died" in str(error)
    )


def last_lines(folder: Path) -> str:
    """The last lines a trial's process wrote."""
    with contextlib.suppress(OSError):
        return "\n".join((folder / LOG_FILE).read_text(errors="replace").splitlines()[-_LOG_LINES:])
    return ""
