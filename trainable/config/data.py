"""Settings of a run: which images, and how they are prepared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainable.config.base import Settings


class DataSettings(Settings):
    """Which images a run sees, and how they are prepared."""

    dataset: Literal["digits", "ffcv"]
    """Keyword of the data set: `digits` (embedded sample, 32 px) or `ffcv` (your own .beton files)."""

    dataset_path: str | None = None
    """Training data: for `ffcv` the training .beton file."""

    dataset_val_path: str | None = None
    """Validation data: for `ffcv` the validation .beton file."""

    image_size: int | None = Field(default=None, ge=8)
    """Side of the square images the network sees, in pixels. Left out: the data set's own (224 for ffcv)."""
