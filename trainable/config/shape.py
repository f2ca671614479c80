"""Settings of a run: how far it goes by shape, measured at its end."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from trainable.config.base import Settings

ShapeMetric = Literal[
    "shape_bias", "normal_acc", "foreground_acc", "silhouette_acc", "frankenstein_acc", "serrated_acc"
]


class ShapeSettings(Settings):
    """What is measured of a run beside its validation data: how far its decisions go by shape."""

    shape_metrics: list[ShapeMetric] = []
    """Metrics of diagnostic stimuli that reports hold, as fractions: `shape_bias` (shape against texture, on
    silhouettes filled with another object's texture), or accuracy on a stimulus. A search may optimize
    them."""

    shape_metrics_every: int | None = Field(default=None, gt=0)
    """Epochs between two measurements of `shape_metrics`. Left out: at the end of the run only."""

    shape_dataset: Literal["digits", "voc"] = "digits"
    """Where the objects of the stimuli come from: the embedded digits, or Pascal VOC's masks."""

    shape_path: str | None = None
    """Folder of Pascal VOC (VOC2012), for `shape_dataset: voc`."""

    @model_validator(mode="after")
    def _shape_settings_fit_together(self) -> Self:
        if (self.shape_dataset == "voc") != (self.shape_path is not None):
            raise ValueError("shape_path is the folder of shape_dataset voc: give both or neither")
        if len(set(self.shape_metrics)) < len(self.shape_metrics):
            raise ValueError(f"shape_metrics must name each metric once, got {self.shape_metrics}")
        return self
