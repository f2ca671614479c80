"""Parameters of a search, in Optuna's vocabulary: what each may be, and how a trial draws it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from optuna.trial import BaseTrial
from pydantic import BaseModel, BeforeValidator, Field, model_validator
from typing_extensions import Self

from search.sections import CLOSED

_MOST = 2**53
"""Up to here every whole number is a float of its own, which is what Optuna keeps of either."""


class _Parameter(BaseModel):
    """What all parameters share."""

    model_config = CLOSED

    when: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Other parameters and the values they must have: `{cell_type: [hgru, fgru]}`. Where that does not hold
    the parameter is not drawn, and the setting has its value in `train`, or its default."""

    def value(self, drawn: Any) -> Any:
        """The setting that a drawn value stands for."""
        return drawn

    def extremes(self) -> list[Any]:
        """Values a valid configuration must accept."""
        raise NotImplementedError

    def samples(self) -> list[Any]:
        """Values that show whether a setting takes those of this parameter: its extremes, and one between."""
        return self.extremes()

    def draws(self, given: Any) -> bool:
        """Whether a trial can draw `given`."""
        return any(same(given, value) for value in self.extremes())

    def takes(self, given: Any) -> bool:
        """Whether the setting can have the value `given`."""
        return self.draws(given)


class _Number(_Parameter):
    """What `float` and `int` share."""

    log: bool = False
    """Draw uniformly in the logarithm: for learning rates and other scales."""

    low: Any
    high: Any
    step: Any
    quantize: Any

    def extremes(self) -> list[Any]:
        """Values a valid configuration must accept."""
        return [self.value(self.low), self.value(self.high)]

    def draws(self, given: Any) -> bool:
        """Whether a trial can draw `given`: a number within the bounds, on the grid where there is one."""
        if (
            isinstance(given, bool)
            or not isinstance(given, int | float)
            or not self.low <= given <= self.high
        ):
            return False
        steps = 0.0 if self.step is None else (given - self.low) / self.step
        return abs(steps - round(steps)) < 1e-8

    def takes(self, given: Any) -> bool:
        """Whether the setting can have the value `given`, of which there must be finitely many."""
        if not self.draws(given):
            return False
        return self.low == self.high or not self.continuous and same(self.value(given), given)

    @property
    def continuous(self) -> bool:
        """Whether every value between the bounds can be drawn."""
        return self.step is None and self.quantize is None

    @property
    def allowed(self) -> str:
        """What can be drawn, for messages."""
        kind = "a whole number" if isinstance(self, IntParameter) else "a number"
        steps = f" in steps of {self.step:g}" if self.step not in (None, 1) else ""
        return f"{kind} from {self.low:g} to {self.high:g}{steps}"


class FloatParameter(_Number):
    """A real number from low to high, both included."""

    type: Literal["float"]
    low: float
    high: float
    step: float | None = Field(default=None, gt=0)
    """Grid from low on; not together with log."""
    quantize: float | None = Field(default=None, gt=0)
    """Round what was drawn to a multiple of this, with log or without; not together with step."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _check_bounds(self.low, self.high, self.log, self.step, self.quantize)
        return self

    def samples(self) -> list[Any]:
        """The bounds may be whole numbers, which an integer setting takes, and what lies between be none."""
        low = self.value(self.low)
        between = low + (self.step or self.quantize or 0.382 * (self.high - self.low))
        return [*self.extremes(), self.value(min(between, self.high))]

    def suggest(self, trial: BaseTrial, name: str) -> float:
        """Let `trial` draw a value."""
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def value(self, drawn: Any) -> Any:
        """The drawn value, or the multiple of `quantize` next to it within the bounds."""
        if self.quantize is None:
            return drawn
        # Through 12 digits, so that 3 * 0.1 is 0.3.
        return float(f"{self.quantize * _nearest(drawn, self.low, self.high, self.quantize):.12g}")


class IntParameter(_Number):
    """A whole number from low to high, both included."""

    type: Literal["int"]
    low: int = Field(ge=-_MOST, le=_MOST)
    high: int = Field(ge=-_MOST, le=_MOST)
    step: int = Field(default=1, gt=0, le=_MOST)
    """Distance between neighbouring values; 1 with log."""
    quantize: int | None = Field(default=None, gt=0, le=_MOST)
    """Round what was drawn to a multiple of this, with log or without; not together with step."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _check_bounds(self.low, self.high, self.log, None if self.step == 1 else self.step, self.quantize)
        return self

    def suggest(self, trial: BaseTrial, name: str) -> int:
        """Let `trial` draw a value."""
        return trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step)

    def value(self, drawn: Any) -> Any:
        """The drawn value, or the multiple of `quantize` next to it within the bounds."""
        if self.quantize is None:
            return drawn
        return self.quantize * _nearest(drawn, self.low, self.high, self.quantize)


class CategoricalParameter(_Parameter):
    """One of several values without an order."""

    type: Literal["categorical"]
    choices: list[str | bool | int | float | None] = Field(min_length=1)

    @model_validator(mode="after")
    def _no_choice_twice(self) -> Self:
        if len({(type(choice), choice) for choice in self.choices}) < len(self.choices):
            raise ValueError(f"choices must differ, got {self.choices}")
        return self

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        """Let `trial` draw a value."""
        return trial.suggest_categorical(name, self.choices)

    @property
    def allowed(self) -> str:
        """What can be drawn, for messages."""
        return f"one of {self.choices}"

    def extremes(self) -> list[Any]:
        """Values a valid configuration must accept."""
        return list(self.choices)


class ConstantParameter(_Parameter):
    """One value, not drawn: useful with `when`. `name: value` is short for it."""

    type: Literal["constant"]
    constant: Any = Field(default=None, alias="value")

    def value(self, drawn: Any) -> Any:
        """The constant, whatever was drawn."""
        return self.constant

    def extremes(self) -> list[Any]:
        """The value."""
        return [self.constant]


def _from_shorthand(given: Any) -> Any:
    if isinstance(given, dict):
        if "type" not in given and (more := set(given) - {"value", "when"}):
            raise ValueError(
                f"with {', '.join(sorted(map(str, more)))}, type must be float, int, categorical or constant"
            )
        return {"type": "constant", **given}
    return given if isinstance(given, BaseModel) else {"type": "constant", "value": given}


Parameter = Annotated[
    Annotated[
        FloatParameter | IntParameter | CategoricalParameter | ConstantParameter, Field(discriminator="type")
    ],
    BeforeValidator(_from_shorthand),
]

Space = dict[str, Parameter]


def same(one: Any, other: Any) -> bool:
    """Whether two settings are equal; 1 is not true."""
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def _nearest(drawn: float, low: float, high: float, quantum: float) -> int:
    """Which multiple of `quantum` within the bounds is nearest."""
    first, last = math.ceil(low / quantum - 1e-9), math.floor(high / quantum + 1e-9)
    return min(max(round(drawn / quantum), first), last)


def _check_bounds(low: float, high: float, log: bool, step: float | None, quantize: float | None) -> None:
    if low > high:
        raise ValueError(f"low ({low}) must not exceed high ({high})")
    if log and low <= 0:
        raise ValueError(f"log needs low above 0, got {low}")
    if log and step is not None:
        raise ValueError("log and step exclude each other; quantize goes with both")
    if step is not None and quantize is not None:
        raise ValueError("step and quantize exclude each other")
    if not math.isfinite(high - low):
        raise ValueError(f"low ({low}) and high ({high}) are too far apart for a float")
    for name, width in (("step", step), ("quantize", quantize)):
        # Beyond, neighbours on the grid are the same float.
        if width is not None and max(abs(low), abs(high), high - low) / _MOST > width:
            raise ValueError(f"{name} ({width}) is too small for numbers from {low} to {high}")
    if quantize is not None and math.ceil(low / quantize - 1e-9) > math.floor(high / quantize + 1e-9):
        raise ValueError(f"no multiple of quantize ({quantize}) lies between low ({low}) and high ({high})")
