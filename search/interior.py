"""Whether a space is valid inside its corners: values in between, and settings that exclude each other."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import optuna
from pydantic import ValidationError

from search.conditions import draw, pairs
from search.space import Space
from trainable.config import TrainConfig
from trainable.config_file import problems_of

_DRAWS = 50
_PAIRS = 5000  # 10 us each


def problems_inside(space: Space, fixed: dict[str, Any]) -> list[str]:
    """What is wrong with pairs of extremes and with points drawn at random: one line per kind of mistake.

    A search would find the same mistakes one trial at a time. The draws are the same at every start.
    """
    problems: dict[Any, str] = {}
    for shown, values in itertools.chain(itertools.islice(pairs(space, fixed), _PAIRS), _drawn(space, fixed)):
        try:
            TrainConfig(**values)
        except ValidationError as error:
            for key, message in problems_of(error, values, TrainConfig):
                names = [key] if key in shown else list(shown)
                point = ", ".join(f"{name}={shown[name]!r}" for name in names)
                kind = (key, re.sub(r"\d", "", message))  # the same mistake at another point
                problems.setdefault(
                    kind, f"space: {point}: {key}: {message}" if key else f"space: {point}: {message}"
                )
    return list(problems.values())


def _drawn(space: Space, fixed: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(_DRAWS):
        values = draw(space, fixed, study.ask())
        yield {name: values[name] for name in space if name in values}, values
