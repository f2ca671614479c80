"""Learning rate over epochs."""

from __future__ import annotations

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, StepLR

from trainable.config import TrainConfig

SCHEDULES: dict[str, Callable[[Optimizer, TrainConfig], LRScheduler]] = {
    "none": lambda optimizer, _: LambdaLR(optimizer, lambda _epoch: 1.0),
    "step": lambda optimizer, c: StepLR(optimizer, step_size=c.lr_step or 1, gamma=0.1),
    "cosine": lambda optimizer, c: CosineAnnealingLR(optimizer, T_max=c.max_epochs),
}


def build_schedule(optimizer: Optimizer, config: TrainConfig) -> LRScheduler:
    """The schedule `config.lr_scheduler`, to be stepped once after every epoch."""
    return SCHEDULES[config.lr_scheduler](optimizer, config)
