"""What all groups of settings share."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class Settings(BaseModel):
    """A group of a run's settings: typed, frozen, the docstrings are the help.

    Unknown keys, infinite numbers, and true or false for a number are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        types = _types(cls.model_fields[info.field_name or ""].annotation)
        given = value if isinstance(value, list) else [value]
        if types & {int, float} and bool not in types and any(isinstance(item, bool) for item in given):
            raise ValueError(f"must be a number, got {value}")
        return value


def _types(annotation: Any) -> set[Any]:
    """What an annotation consists of: `list[int] | None` of list, int, NoneType and more."""
    return {annotation}.union(*map(_types, get_args(annotation))) if get_args(annotation) else {annotation}
