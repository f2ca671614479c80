"""Points of a space that are named rather than drawn: the grid, and those a user wants tried first."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from search.conditions import drawn
from search.space import CategoricalParameter, ConstantParameter, IntParameter

_MOST_POINTS = 100_000


def grid_points(space: Mapping[str, Any], fixed: dict[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the space's values once, the last parameter changing fastest.

    Constants are no part of a point, nor are parameters whose condition does not hold in it.

    Raises:
        ValueError: a parameter has no end of values.
    """
    axes = {
        name: _values(name, parameter)
        for name, parameter in space.items()
        if not isinstance(parameter, ConstantParameter)
    }
    if math.prod(map(len, axes.values())) > _MOST_POINTS:
        raise ValueError(f"search.sampler: the grid has more than {_MOST_POINTS:,} points")
    points = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    return list(
        {tuple(point.items()): point for point in (drawn(dict(space), fixed, p) for p in points)}.values()
    )


def _values(name: str, parameter: Any) -> Sequence[Any]:
    if isinstance(parameter, CategoricalParameter):
        return parameter.choices
    if isinstance(parameter, IntParameter):
        return range(parameter.low, parameter.high + 1, parameter.step)
    if parameter.step is None:
        raise ValueError(f"space.{name}: sampler grid needs choices, or a step between low and high")
    steps = int((parameter.high - parameter.low) / parameter.step + 1e-9)
    steps = min(steps, _MOST_POINTS)  # more are refused
    return [parameter.low + index * parameter.step for index in range(steps + 1)]


def problems_of_points(space: Mapping[str, Any], points: list[dict[str, Any]]) -> list[str]:
    """What is wrong with `points_to_evaluate`: unknown parameters, values that no trial could draw."""
    problems = []
    for index, point in enumerate(points):
        for name, value in point.items():
            where = f"search.points_to_evaluate.{index}.{name}"
            if name not in space or isinstance(space[name], ConstantParameter):
                problems.append(f"{where}: not in space; it has: {', '.join(space)}")
            elif not space[name].draws(value):
                problems.append(f"{where}: must be {space[name].allowed}, got {value!r}")
    return problems
