"""Who chooses the next configuration: Optuna's samplers, built anew for each trial from a seed of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from search.points import grid_points
from search.sections import Search
from search.spec import SearchSpec

SAMPLERS: dict[str, Callable[[Search, int], BaseSampler]] = {
    "tpe": lambda search, seed: optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=search.sampler.startup_trials,
        multivariate=True,
        group=True,
        constant_liar=True,  # running trials count as bad, so that parallel draws spread out
    ),
    "gp": lambda search, seed: optuna.samplers.GPSampler(
        seed=seed, n_startup_trials=search.sampler.startup_trials
    ),
    # Its state lies in the study with each trial, so that a new sampler goes on where the last one stood.
    "cmaes": lambda search, seed: optuna.samplers.CmaEsSampler(
        seed=seed,
        n_startup_trials=search.sampler.startup_trials,
        warn_independent_sampling=False,
        consider_pruned_trials=True,
    ),
    "nsga2": lambda search, seed: optuna.samplers.NSGAIISampler(
        seed=seed, population_size=search.sampler.population
    ),
    # One scrambled sequence for the whole search: its seed is the search's, its position is in the study.
    "qmc": lambda search, seed: optuna.samplers.QMCSampler(
        seed=search.seed,
        scramble=True,
        warn_asynchronous_seeding=False,
        warn_independent_sampling=False,
        independent_sampler=optuna.samplers.RandomSampler(seed=seed),
    ),
    "random": lambda search, seed: optuna.samplers.RandomSampler(seed=seed),
}


def build_sampler(spec: SearchSpec, number: int) -> BaseSampler:
    """The sampler that draws trial `number`.

    Its seed is a function of the search's seed and the number, so a resumed search draws what an
    uninterrupted one would have drawn from the same results, and never the same point twice.
    """
    search = spec.search
    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    kind = "random" if search.sampler.type == "grid" else search.sampler.type
    with warnings.catch_warnings():
        # `group` and fixed parameters have been experimental since 2020.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = SAMPLERS[kind](search, seed)
        fixed = _fixed(spec, number)
        return optuna.samplers.PartialFixedSampler(fixed, sampler) if fixed else sampler


def _fixed(spec: SearchSpec, number: int) -> dict[str, Any]:
    """Parameters of trial `number` that are not left to chance: given points first, then the grid's."""
    given = spec.search.points_to_evaluate
    if number < len(given):
        return given[number]
    if spec.search.sampler.type == "grid":
        points = grid_points(spec.space, spec.train)
        return points[(number - len(given)) % len(points)]
    return {}
