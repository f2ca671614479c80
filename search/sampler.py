"""The search algorithm Ray Tune asks: Optuna chooses, and is told the truth about every end."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from ray.tune.search import Searcher

from search.spec import Search
from search.study import SearchStudy, trial_name

SAMPLERS: dict[str, Callable[[Search, int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda search, seed: optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=search.sampler.startup_trials,
        multivariate=True,
        group=True,
        constant_liar=True,  # running trials count as bad, so that parallel draws spread out
    ),
    "random": lambda search, seed: optuna.samplers.RandomSampler(seed=seed),
}


def build_sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that draws trial `number`.

    Its seed is a function of the search's seed and the number, so a resumed search draws what an
    uninterrupted one would have drawn from the same results, and never the same point twice.
    """
    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group` is one since 2020
        return SAMPLERS[search.sampler.type](search, seed)


class StudySearcher(Searcher):
    """Hands out unfinished trials of an earlier process first, then new ones.

    Ray's own OptunaSearch tells Optuna that a trial stopped early is complete, leaves a trial with NaN
    running for ever, and draws from a sampler whose state a killed driver loses; hence this one.

    Args:
        study: The search's memory.
        threads: CPU threads of a one-worker trial.
    """

    def __init__(self, study: SearchStudy, threads: int) -> None:
        super().__init__(metric=study.spec.search.metric, mode=study.spec.search.direction)
        self._study = study
        self._threads = threads
        self._unfinished = study.unfinished()
        self._numbers: dict[str, int] = {}  # Tune's trial id -> Optuna's trial number

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next trial as `trainable.inprocess.run_trial` takes it."""
        if self._unfinished:
            trial = self._study.reopen(self._unfinished.pop(0), self._sampler_of)
        else:
            trial = self._study.ask(self._sampler_of)
        self._numbers[trial_id] = trial.number
        return trial_payload(self._study, trial, self._threads)

    def _sampler_of(self, number: int) -> optuna.samplers.BaseSampler:
        return build_sampler(self._study.spec.search, number)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record one epoch."""
        self._study.record(self._numbers[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record how a trial ended; without a result it was only interrupted, and stays unfinished."""
        if result or error:
            self._study.end(self._numbers[trial_id], result, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is on disk already. Ray wants a file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Never called: a search resumes from its study."""
        raise RuntimeError("a search resumes from its optuna.db, not from Ray Tune's experiment state")


def trial_payload(study: SearchStudy, trial: FrozenTrial, threads: int) -> dict[str, Any]:
    """What a trial's process is given."""
    return {
        "number": trial.number,
        "config": study.config(trial).model_dump(mode="json"),
        "folder": str(study.folder / trial_name(trial.number)),
        "threads": threads,
    }
