"""TrainConfig: every setting of a single training run, with its unit and its consequence."""

from __future__ import annotations

from pydantic import model_validator
from typing_extensions import Self

from trainable.config.data import DataSettings
from trainable.config.keeping import KeepingSettings
from trainable.config.network import NetworkSettings
from trainable.config.optimization import EARLY_STOP_CAP, OptimizationSettings

__all__ = ["EARLY_STOP_CAP", "TrainConfig"]


class TrainConfig(KeepingSettings, OptimizationSettings, NetworkSettings, DataSettings):
    """Everything that decides one training run; stored beside its results as config.json.

    The keys are grouped by file: `data`, `network`, `optimization`, `keeping`.
    """

    @model_validator(mode="after")
    def _time_loss_has_a_weight_per_step(self) -> Self:
        if isinstance(self.time_loss, list) and len(self.time_loss) != self.time_steps:
            raise ValueError(
                f"time_loss must have one weight per time step ({self.time_steps}), got {len(self.time_loss)}"
            )
        return self
