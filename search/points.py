"""Points of a space that are named rather than drawn: the grid, and those a user wants tried first."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from search.conditions import drawn
from search.space import CategoricalParameter, ConstantParameter, IntParameter


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
    points = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    return list(
        {tuple(point.items()): point for point in (drawn(dict(space), fixed, p) for p in points)}.values()
    )


def _values(name: str, parameter: Any) -> list[Any]:
    if isinstance(parameter, CategoricalParameter):
        return list(parameter.choices)
    if isinstance(parameter, IntParameter):
        return list(range(parameter.low, parameter.high + 1, parameter.step))
    if parameter.step is None:
        raise ValueError(f"space.{name}: sampler grid needs choices, or a step between low and high")
    steps = int((parameter.high - parameter.low) / parameter.step + 1e-9)
    return [parameter.low + index * parameter.step for index in range(steps + 1)]


def problems_of_points(space: Mapping[str, Any], points: list[dict[str, Any]]) -> list[str]:
    """What is wrong with `points_to_evaluate`: unknown parameters, values outside their range."""
    problems = []
    for index, point in enumerate(points):
        for name, value in point.items():
            where = f"search.points_to_evaluate.{index}.{name}"
            if name not in space or isinstance(space[name], ConstantParameter):
                problems.append(f"{where}: not in space; it has: {', '.join(space)}")
            elif isinstance(space[name], CategoricalParameter):
                if value not in space[name].choices:
                    problems.append(f"{where}: must be one of {space[name].choices}, got {value!r}")
            elif not isinstance(value, int | float) or not space[name].low <= value <= space[name].high:
                bounds = f"{space[name].low:g} to {space[name].high:g}"
                problems.append(f"{where}: must be a number from {bounds}, got {value!r}")
    return problems
