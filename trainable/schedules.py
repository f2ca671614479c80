"""Learning rate over the steps of a run: functions of the step alone, so that nothing is lost on resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from trainable.config import TrainConfig


class When(NamedTuple):
    """A step of a run, and how long the parts of the run are, all counted in optimizer steps."""

    step: int
    """Steps done before this one."""

    warmup: int
    total: int
    per_epoch: int

    @property
    def progress(self) -> float:
        """0 during the warm-up, then up to 1 after the last step."""
        return max(0, self.step - self.warmup) / max(1, self.total - self.warmup)


def _none(when: When, config: TrainConfig) -> float:
    return 1.0


def _step(when: When, config: TrainConfig) -> float:
    # Epochs count from the start of the run, warm-up included, as in the original.
    return float(0.1 ** (when.step // when.per_epoch // (config.lr_step or 1)))


def _cosine(when: When, config: TrainConfig) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * when.progress))


def _linear(when: When, config: TrainConfig) -> float:
    return 1.0 - when.progress


def _onecycle(when: When, config: TrainConfig) -> float:
    """Smith and Topin 2017 (arXiv:1708.07120) with the numbers of torch's OneCycleLR, momentum left alone."""
    peak = (when.warmup or 0.3 * when.total) - 1.0
    if when.step <= peak:
        return _between(1 / 25, 1.0, when.step / peak if peak > 0 else 1.0)
    return _between(1.0, 1 / 25e4, (when.step - peak) / (when.total - 1 - peak))


def _between(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))


SCHEDULES: dict[str, Callable[[When, TrainConfig], float]] = {
    "none": _none,
    "step": _step,
    "cosine": _cosine,
    "linear": _linear,
    "onecycle": _onecycle,
}


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of an optimizer step, `step` steps having been done before it.

    During warm-up step s of W has (s + 1) / W of what it would have; `onecycle` has a warm-up of its own.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    when = When(step, warmup, config.max_epochs * steps_per_epoch, steps_per_epoch)
    rate = config.learning_rate * SCHEDULES[config.lr_scheduler](when, config)
    return rate * (step + 1) / warmup if step < warmup and config.lr_scheduler != "onecycle" else rate
