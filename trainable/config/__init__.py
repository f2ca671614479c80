"""TrainConfig: every setting of a single training run, with its unit and its consequence."""

from __future__ import annotations

from trainable.config.data import DataSettings
from trainable.config.keeping import KeepingSettings
from trainable.config.network import NetworkSettings
from trainable.config.optimization import EARLY_STOP_CAP, OptimizationSettings

__all__ = ["EARLY_STOP_CAP", "TrainConfig"]


class TrainConfig(KeepingSettings, OptimizationSettings, NetworkSettings, DataSettings):
    """Everything that decides one training run; stored beside its results as config.json.

    The keys are grouped by file: `data`, `network`, `optimization`, `keeping`.
    """
