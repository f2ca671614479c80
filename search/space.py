"""Parameters of a search, in Optuna's vocabulary: what each may be, and how a trial draws it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from optuna.trial import BaseTrial
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from typing_extensions import Self


class _Parameter(BaseModel):
    """What all parameters share."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    when: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Other parameters and the values they must have: `{cell_type: [hgru, fgru]}`. Where that does not hold
    the parameter is not drawn, and the setting has its value in `train`, or its default."""

    def value(self, drawn: Any) -> Any:
        """The setting that a drawn value stands for."""
        return drawn


class _Number(_Parameter):
    """What `float` and `int` share."""

    log: bool = False
    """Draw uniformly in the logarithm: for learning rates and other scales."""

    def extremes(self) -> list[Any]:
        """Values a valid configuration must accept."""
        low, high = getattr(self, "low"), getattr(self, "high")  # noqa: B009
        return [self.value(low), self.value(high)]


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
    low: int
    high: int
    step: int = Field(default=1, gt=0)
    """Distance between neighbouring values; 1 with log."""
    quantize: int | None = Field(default=None, gt=0)
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
        return given if "type" in given or set(given) - {"value", "when"} else {"type": "constant", **given}
    return given if isinstance(given, BaseModel) else {"type": "constant", "value": given}


Parameter = Annotated[
    Annotated[
        FloatParameter | IntParameter | CategoricalParameter | ConstantParameter, Field(discriminator="type")
    ],
    BeforeValidator(_from_shorthand),
]

Space = dict[str, Parameter]


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
    if quantize is not None and math.ceil(low / quantize - 1e-9) > math.floor(high / quantize + 1e-9):
        raise ValueError(f"no multiple of quantize ({quantize}) lies between low ({low}) and high ({high})")
