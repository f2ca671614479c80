"""The search's memory: an Optuna study in the search's folder, from which everything is rebuilt on resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from search.conditions import draw
from search.spec import SearchSpec
from trainable.config import TrainConfig
from trainable.metrics import DIVERGED, EPOCH, FINISHED

_CAUSE = "cause"
STUDY_FILE = "optuna.db"


def trial_name(number: int) -> str:
    """Name of a trial, and of its folder below the search's."""
    return f"trial_{number:04d}"


class SearchStudy:
    """An Optuna study whose every step is committed to `optuna.db` before the next one starts.

    The study is what a killed search continues from: trials that ended keep their state, trials that
    were running are RUNNING still and are handed out again. Ray Tune's own experiment state, written
    every ten seconds at best, is not needed for that.

    Args:
        folder: The search's folder; the study's file is made in it on first use.
        spec: What is searched.
    """

    def __init__(self, folder: Path, spec: SearchSpec) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder
        self.spec = spec
        self._live: dict[int, optuna.Trial] = {}
        self.study = optuna.create_study(
            storage=f"sqlite:///{folder / STUDY_FILE}",
            study_name=folder.name,
            direction="maximize" if spec.search.direction == "max" else "minimize",
            sampler=optuna.samplers.RandomSampler(),  # `ask` is given its sampler by the caller
            load_if_exists=True,
        )

    def trials(self) -> list[FrozenTrial]:
        """All trials by number, as the file has them now."""
        return self.study.get_trials(deepcopy=False)

    def finished(self) -> list[FrozenTrial]:
        """Trials that ended: complete, pruned or failed."""
        return [trial for trial in self.trials() if trial.state.is_finished()]

    def unfinished(self) -> list[FrozenTrial]:
        """Trials that were running when the last process died, in order."""
        return [trial for trial in self.trials() if trial.state == TrialState.RUNNING]

    def ask(self, sampler_of: Callable[[int], BaseSampler]) -> FrozenTrial:
        """Create the next trial, its parameters drawn by the sampler of its number."""
        self.study.sampler = sampler_of(len(self.trials()))
        return self._draw(self.study.ask())

    def reopen(self, trial: FrozenTrial, sampler_of: Callable[[int], BaseSampler]) -> FrozenTrial:
        """Take up an unfinished trial; parameters that a kill left undrawn are drawn now."""
        self.study.sampler = sampler_of(trial.number)
        return self._draw(optuna.Trial(self.study, trial._trial_id))

    def _draw(self, trial: optuna.Trial) -> FrozenTrial:
        draw(self.spec.space, self.spec.train, trial)
        self._live[trial.number] = trial
        return self.trials()[trial.number]

    def config(self, trial: FrozenTrial) -> TrainConfig:
        """The configuration of a trial."""
        return self.spec.config(trial.params)

    def record(self, number: int, result: dict[str, Any]) -> None:
        """Keep the metric a trial reported; an epoch repeated after a resume changes nothing."""
        trial = self.trials()[number]
        if int(result[EPOCH]) not in trial.intermediate_values:
            self._live[number].report(float(result[self.spec.search.metric]), int(result[EPOCH]))

    def end(self, number: int, result: dict[str, Any] | None, error: bool) -> TrialState:
        """Tell Optuna how a trial ended, and return that.

        COMPLETE only where the trial ran all its epochs; stopped early is PRUNED, so that a two-epoch
        value is never taken for a fifty-epoch one; diverged and crashed are FAIL, with their cause.
        """
        if result:
            self.record(number, result)
        value = None
        if error or result is None:
            state = TrialState.FAIL
            self._live[number].set_user_attr(_CAUSE, "crashed")
        elif DIVERGED in result:
            state = TrialState.FAIL
            self._live[number].set_user_attr(_CAUSE, str(result[DIVERGED]))
        elif FINISHED in result:
            state, value = TrialState.COMPLETE, float(result[self.spec.search.metric])
        else:
            state = TrialState.PRUNED
        self.study.tell(self._live.pop(number), value, state=state)
        return state

    def best(self) -> FrozenTrial | None:
        """The winner: best final value among trials that ran all their epochs.

        Where none has, the best among those that got furthest, because values at different epochs don't
        compare; None before the first report.
        """
        complete = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        candidates = complete or [
            trial for trial in self.trials() if trial.intermediate_values and trial.state != TrialState.FAIL
        ]
        if not candidates:
            return None
        furthest = max(max(trial.intermediate_values) for trial in candidates)
        if not complete:
            candidates = [trial for trial in candidates if max(trial.intermediate_values) == furthest]
        sign = 1 if self.spec.search.direction == "max" else -1
        return max(candidates, key=lambda trial: sign * last_value(trial))


def last_value(trial: FrozenTrial) -> float:
    """The metric at a trial's last reported epoch."""
    return trial.intermediate_values[max(trial.intermediate_values)]


def cause(trial: FrozenTrial) -> str:
    """Why a failed trial failed; empty for others."""
    return str(trial.user_attrs.get(_CAUSE, ""))
