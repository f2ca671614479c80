"""How a member of a population changes the settings it took over from another (population based training)."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna

from search.conditions import drawn
from search.space import CategoricalParameter, ConstantParameter, FloatParameter, IntParameter
from search.spec import SearchSpec

_EXPLORE = 0xE4B


def explore(spec: SearchSpec, params: dict[str, Any], number: int, epoch: int) -> dict[str, Any]:
    """Change every parameter of `params` that may change while a network trains.

    As in Ray Tune: with `resample_probability` a value is drawn anew; otherwise a number is multiplied by
    one of `perturbation_factors` within its bounds, and a choice moves to a neighbour in the list. What
    shapes the network, and parameters that others depend on, stay as they were taken over. The outcome
    depends on the search's seed, the trial's number and the epoch alone.
    """
    settings = spec.search.scheduler
    generator = np.random.default_rng([spec.search.seed, number, epoch, _EXPLORE])
    changed = dict(params)
    for name in spec.adjustable:
        if name not in params:
            continue
        parameter = spec.space[name]
        assert not isinstance(parameter, ConstantParameter)
        anew = generator.random() < settings.resample_probability
        if anew:
            changed[name] = _draw(parameter, name, int(generator.integers(2**31)))
        elif isinstance(parameter, CategoricalParameter):
            place = parameter.choices.index(params[name]) + int(generator.choice([-1, 1]))
            changed[name] = parameter.choices[min(max(place, 0), len(parameter.choices) - 1)]
        else:
            changed[name] = _scaled(
                parameter, params[name], float(generator.choice(settings.perturbation_factors))
            )
    return drawn(spec.space, spec.train, changed)


def _draw(parameter: Any, name: str, seed: int) -> Any:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return parameter.suggest(study.ask(), name)


def _scaled(parameter: FloatParameter | IntParameter, value: float, factor: float) -> float | int:
    """The value times the factor, on the parameter's grid and within its bounds."""
    scaled = value * factor
    if parameter.step is None:
        return min(max(scaled, parameter.low), parameter.high)
    before = round((value - parameter.low) / parameter.step)
    last = int((parameter.high - parameter.low) / parameter.step + 1e-9)
    steps = round((scaled - parameter.low) / parameter.step)
    if steps == before:  # a small whole number would never change
        steps += 1 if factor > 1 else -1
    return parameter.low + min(max(steps, 0), last) * parameter.step
