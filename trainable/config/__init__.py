"""TrainConfig: every setting of a single training run, with its unit and its consequence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import model_validator
from typing_extensions import Self

from data import LoadingOptions
from trainable.config.data import DataSettings
from trainable.config.keeping import KeepingSettings
from trainable.config.network import NetworkSettings
from trainable.config.optimization import EARLY_STOP_CAP, OptimizationSettings
from trainable.config.shape import ShapeSettings
from trainable.metrics import SHAPE_METRICS

__all__ = ["ADJUSTABLE", "EARLY_STOP_CAP", "PATHS", "TrainConfig"]

PATHS = ("dataset_path", "dataset_val_path", "init", "shape_path")
"""Settings that name a file or a folder."""

ADJUSTABLE = frozenset(
    {
        "learning_rate",
        "weight_decay",
        "momentum",
        "dropout",
        "dropout_recurrent",
        "time_steps",
        "label_smoothing",
        "mixup",
        "cutmix",
        "clip_norm",
        "clip_value",
        "ema_decay",
        "color_jitter",
        "grey_probability",
    }
)
"""Settings that may change between two epochs of a run: weights, optimizer and data go on as they are."""


class TrainConfig(KeepingSettings, ShapeSettings, OptimizationSettings, NetworkSettings, DataSettings):
    """Everything that decides one training run; stored beside its results as config.json.

    The keys are grouped by file: `data`, `network`, `optimization`, `shape`, `keeping`.
    """

    @model_validator(mode="after")
    def _time_loss_has_a_weight_per_step(self) -> Self:
        if isinstance(self.time_loss, list) and len(self.time_loss) != self.time_steps:
            raise ValueError(
                f"time_loss must have one weight per time step ({self.time_steps}), got {len(self.time_loss)}"
            )
        return self

    @model_validator(mode="after")
    def _half_precision_images_need_half_precision_arithmetic(self) -> Self:
        if self.image_dtype != "float32" and self.precision == "fp32":
            raise ValueError(f"image_dtype {self.image_dtype} needs precision bf16 or fp16, got fp32")
        return self

    def with_absolute_paths(self) -> TrainConfig:
        """The same run for processes that work in other folders."""
        paths = {key: getattr(self, key) for key in PATHS}
        # Path.expanduser raises where there is no such user; this is then a folder that is missing.
        found = {key: str(Path(os.path.expanduser(path)).absolute()) for key, path in paths.items() if path}
        return self.model_copy(update=found)

    @property
    def reported_at_the_end(self) -> set[str]:
        """Metrics that only the last report of a run holds."""
        last = {"val_acc_2t"} if self.val_2t == "end" else set()
        return last | (set(self.shape_metrics) if self.shape_metrics_every is None else set())

    @property
    def not_reported(self) -> set[str]:
        """Of the metrics that a run may report, those that this one never does."""
        never = {"val_acc_2t"} if self.val_2t == "never" else set()
        return never | (set(SHAPE_METRICS) - set(self.shape_metrics))

    def data_source(self) -> dict[str, Any]:
        """Which images, at which size and loaded how: keywords of `check_data` and `open_data`."""
        options = LoadingOptions(
            loader=self.loader,
            crop_area=self.crop_area,
            color_jitter=self.color_jitter,
            grey_probability=self.grey_probability,
            first_size=self.first_size,
            resize_epochs=self.resize_epochs,
            dtype=self.image_dtype,
            channels_last=self.channels_last,
        )
        return {
            "dataset": self.dataset,
            "dataset_path": self.dataset_path,
            "dataset_val_path": self.dataset_val_path,
            "image_size": self.image_size,
            "options": options,
        }
