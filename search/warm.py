"""What of an earlier search's trials is true of this one's space."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FixedTrial, FrozenTrial

from search.conditions import holds, in_order
from search.space import ConstantParameter
from search.spec import SearchSpec

_JOINT = ("gp", "cmaes", "nsga2", "qmc")
"""Samplers that draw together only what all trials have in common, and the rest at random."""


@dataclass
class Taken:
    """A trial's parameters as the new space has them."""

    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    """The new space's own: Optuna knows a parameter by one kind and one range only."""

    missing: list[str] = field(default_factory=list)
    """Parameters that the new space would have drawn, of which the trial has no value in it."""


def take_over(spec: SearchSpec, params: dict[str, Any]) -> Taken:
    """Those of another search's `params` that a trial of this one could have drawn."""
    taken, values = Taken(), dict(spec.train)
    for name in in_order(spec.space):
        parameter = spec.space[name]
        if not holds(parameter.when, values):
            continue
        if isinstance(parameter, ConstantParameter):
            values[name] = parameter.value(None)
            continue
        distribution = _distribution(parameter, name)
        if name not in params or not _contains(distribution, params[name]):
            taken.missing.append(name)
            continue
        # As the new space writes it: an int where the other drew a float.
        value = distribution.to_external_repr(distribution.to_internal_repr(params[name]))
        taken.params[name], taken.distributions[name] = value, distribution
        values[name] = parameter.value(value)
    return taken


def usable(spec: SearchSpec, trials: Iterable[FrozenTrial]) -> tuple[list[tuple[FrozenTrial, Taken]], str]:
    """The trials that the sampler can learn from, and one line on what became of all of them."""
    joint = spec.search.sampler.type in _JOINT
    kept, outside, total = [], set(), 0
    for trial in trials:
        total += 1
        taken = take_over(spec, trial.params)
        outside.update(taken.missing)
        if taken.params and not (joint and taken.missing):
            kept.append((trial, taken))
    names = ", ".join(name for name in spec.space if name in outside)
    why = f"; this space's {names} had no value, or one outside, in some of them" if names else ""
    return kept, f"{len(kept)} of {total} trials taken over{why}"


def _distribution(parameter: Any, name: str) -> BaseDistribution:
    trial = FixedTrial({name: parameter.extremes()[0]})
    parameter.suggest(trial, name)
    return trial.distributions[name]


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        same = [choice for choice in distribution.choices if choice == value]
        return any(isinstance(choice, bool) == isinstance(value, bool) for choice in same)  # True is no 1
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return distribution._contains(distribution.to_internal_repr(value))
