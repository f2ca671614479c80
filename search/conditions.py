"""Which parameters of a space count in a trial: those whose conditions hold, parents before children."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from optuna.trial import BaseTrial

from search.space import ConstantParameter, Space, same
from trainable.config import TrainConfig


def draw(space: Space, fixed: dict[str, Any], trial: BaseTrial) -> dict[str, Any]:
    """Let `trial` draw every parameter whose condition holds; `fixed` are the settings of all trials.

    Returns its settings.
    """
    values = dict(fixed)
    for name in in_order(space):
        parameter = space[name]
        if not holds(parameter.when, values):
            continue
        drawn = None if isinstance(parameter, ConstantParameter) else parameter.suggest(trial, name)
        values[name] = parameter.value(drawn)
    return values


def settings(space: Space, fixed: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The settings of a trial that has drawn `params`: conditions, constants and rounding applied."""
    values = dict(fixed)
    for name in in_order(space):
        parameter = space[name]
        if (name in params or isinstance(parameter, ConstantParameter)) and holds(parameter.when, values):
            values[name] = parameter.value(params.get(name))
    return values


def drawn(space: Space, fixed: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Those of `params` that a trial would draw, in the order of the space's file."""
    values = dict(fixed)
    held = set()
    for name in in_order(space):
        if holds(space[name].when, values):
            values[name] = space[name].value(params.get(name))
            held.add(name)
    return {name: value for name, value in params.items() if name in held}


def corners(space: Space, fixed: dict[str, Any], *, between: bool = False) -> list[dict[str, Any]]:
    """Settings at the edges of the space: each parameter at each extreme, in each way its condition can hold.

    The others have their first value. With `between`, a value off the extremes is added for each parameter.
    """
    first = {name: parameter.extremes()[0] for name, parameter in space.items()}
    points = [
        settings(space, fixed, {**first, **way, name: value})
        for name, parameter in space.items()
        for way in _ways(space, name)
        for value in (parameter.samples() if between else parameter.extremes())
    ]
    return [point for index, point in enumerate(points) if point not in points[:index]]


def pairs(space: Space, fixed: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each two parameters at each of their extremes: these two, and the settings that come of it.

    The others have their first value, or one with which the conditions of the two can hold.
    """
    first = {name: parameter.extremes()[0] for name, parameter in space.items()}
    for one, other in itertools.combinations(space, 2):
        for way in itertools.product(_ways(space, one), _ways(space, other)):
            for values in itertools.product(space[one].extremes(), space[other].extremes()):
                pair = dict(zip((one, other), values, strict=True))
                yield pair, settings(space, fixed, {**first, **way[0], **way[1], **pair})


def in_order(space: Space) -> list[str]:
    """Names with parents before children, otherwise as they stand in the file.

    Raises:
        ValueError: a parameter depends on itself, by way of others or at once.
    """
    done: list[str] = []
    waiting = list(space)
    while waiting:
        ready = [name for name in waiting if not any(parent in waiting for parent in space[name].when)]
        if not ready:
            raise ValueError(f"space: conditions run in a circle: {', '.join(waiting)}")
        done.append(ready[0])
        waiting.remove(ready[0])
    return done


def problems_of_conditions(space: Space) -> list[str]:
    """What is wrong with the conditions: unknown parents, values a parent never has, circles."""
    problems = []
    for name, parameter in space.items():
        for parent, allowed in parameter.when.items():
            where = f"space.{name}.when.{parent}"
            if parent not in space:
                problems.append(f"{where}: not in space; it has: {', '.join(space)}")
                continue
            if parent == "seed":  # a confirmation changes the seed, and nothing else may change with it
                problems.append(f"{where}: no parameter may depend on the seed")
                continue
            given = space[parent]
            why = ", a number without step or quantize," if getattr(given, "continuous", False) else ""
            never = [value for value in allowed if not given.takes(value)]
            problems += [f"{where}: {parent}{why} is never {value!r}" for value in never]
    if not problems:
        try:
            in_order(space)
        except ValueError as error:
            problems.append(str(error))
    return problems


def holds(when: dict[str, list[Any]], values: dict[str, Any]) -> bool:
    """Whether a condition holds among the settings so far."""
    return all(
        any(_meets(_value(parent, values), value) for value in allowed) for parent, allowed in when.items()
    )


def _meets(value: Any, named: Any) -> bool:
    """Whether a parent has the value that a condition names: three steps of 0.1 are 0.3."""
    if same(value, named):
        return True
    reals = isinstance(value, float) and isinstance(named, int | float) and not isinstance(named, bool)
    return reals and abs(value - named) <= 1e-15 + 1e-9 * abs(value)


def _value(name: str, values: dict[str, Any]) -> Any:
    """A setting as it stands so far; its default where nothing was said."""
    return values[name] if name in values else TrainConfig.model_fields[name].get_default()


def _ways(space: Space, name: str) -> list[dict[str, Any]]:
    """The ways in which the condition of a parameter can hold: values of its parents and theirs."""
    choices = [
        [{**above, parent: value} for above in _ways(space, parent) for value in allowed]
        for parent, allowed in space[name].when.items()
    ]
    return [
        {key: value for part in parts for key, value in part.items()} for parts in itertools.product(*choices)
    ]
