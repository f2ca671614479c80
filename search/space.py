"""Parameters of a search, in Optuna's vocabulary: what each may be, and how a trial draws it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from optuna.trial import Trial
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

_CLOSED = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FloatParameter(BaseModel):
    """A real number from low to high, both included."""

    model_config = _CLOSED

    type: Literal["float"]
    low: float
    high: float
    log: bool = False
    """Draw uniformly in the logarithm: for learning rates and other scales."""
    step: float | None = Field(default=None, gt=0)
    """Grid between low and high; not together with log."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _check_bounds(self.low, self.high, self.log, self.step)
        return self

    def suggest(self, trial: Trial, name: str) -> float:
        """Let `trial` draw a value."""
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def extremes(self) -> list[Any]:
        """Values a valid configuration must accept."""
        return [self.low, self.high]


class IntParameter(BaseModel):
    """A whole number from low to high, both included."""

    model_config = _CLOSED

    type: Literal["int"]
    low: int
    high: int
    log: bool = False
    """Draw uniformly in the logarithm."""
    step: int = Field(default=1, gt=0)
    """Distance between neighbouring values; 1 with log."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        _check_bounds(self.low, self.high, self.log, None if self.step == 1 else self.step)
        return self

    def suggest(self, trial: Trial, name: str) -> int:
        """Let `trial` draw a value."""
        return trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step)

    def extremes(self) -> list[Any]:
        """Values a valid configuration must accept."""
        return [self.low, self.high]


class CategoricalParameter(BaseModel):
    """One of several values without an order."""

    model_config = _CLOSED

    type: Literal["categorical"]
    choices: list[str | bool | int | float | None] = Field(min_length=1)

    @model_validator(mode="after")
    def _no_choice_twice(self) -> Self:
        if len({(type(choice), choice) for choice in self.choices}) < len(self.choices):
            raise ValueError(f"choices must differ, got {self.choices}")
        return self

    def suggest(self, trial: Trial, name: str) -> Any:
        """Let `trial` draw a value."""
        return trial.suggest_categorical(name, self.choices)

    def extremes(self) -> list[Any]:
        """Values a valid configuration must accept."""
        return list(self.choices)


Parameter = Annotated[FloatParameter | IntParameter | CategoricalParameter, Field(discriminator="type")]


def _check_bounds(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(f"low ({low}) must not exceed high ({high})")
    if log and low <= 0:
        raise ValueError(f"log needs low above 0, got {low}")
    if log and step is not None:
        raise ValueError("log and step exclude each other")
