"""Who stops trials early; rungs are rebuilt from the study, so a resumed search is as strict as before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from optuna.trial import FrozenTrial
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from search.study import SearchStudy
from trainable.metrics import EPOCH


class ResumableASHA(AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934) that knows earlier results.

    Ray Tune does not restore a scheduler's rungs. Here every value in the study is fed in again: of
    finished trials at once, of a resumed trial when it is added, under its new id.

    Args:
        study: The search's memory.
    """

    def __init__(self, study: SearchStudy) -> None:
        search = study.spec.search
        super().__init__(
            time_attr=EPOCH,
            metric=search.metric,
            mode=search.direction,
            max_t=study.spec.max_epochs,
            grace_period=search.scheduler.grace_period,
            reduction_factor=search.scheduler.reduction_factor,
            stop_last_trials=False,  # a trial at its last epoch ends by itself
        )
        self._history = {trial.number: trial for trial in study.trials()}
        for trial in study.finished():
            stub = SimpleNamespace(trial_id=f"finished_{trial.number}", config={"number": None})
            self.on_trial_add(None, stub)
            self._replay(stub, trial)
            self.on_trial_remove(None, stub)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Enter a trial, with what it reported before its process died."""
        super().on_trial_add(tune_controller, trial)
        known = self._history.get(trial.config["number"])
        if known is not None:
            self._replay(trial, known)

    def _replay(self, trial: Any, known: FrozenTrial) -> None:
        for epoch, value in sorted(known.intermediate_values.items()):
            self.on_trial_result(None, trial, {EPOCH: epoch, self._metric: value})

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its scheduler into the experiment state; the study's trials need not go along.
        return {**self.__dict__, "_history": {}}


def build_scheduler(study: SearchStudy) -> TrialScheduler:
    """The scheduler the spec asks for."""
    if study.spec.search.scheduler.type == "asha":
        return ResumableASHA(study)
    return FIFOScheduler()
