"""What both loaders share: which images come in which epoch, checks, and the way to the device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.order import AUGMENTATION, epoch_key

Batch = tuple[Tensor, Tensor]
Plan = Callable[[int], NDArray[np.int64]]


@dataclass(frozen=True)
class Schedule:
    """Everything of one split that depends on the epoch."""

    order: Plan
    """Epoch to the indices of this rank's images, in order."""

    seed: int
    image_size: Callable[[int], int]
    """Epoch to the side of its images, in pixels."""

    device: torch.device | None = None
    """Where batches are wanted; None leaves them in main memory."""

    def key(self, epoch: int) -> int:
        """64 bits that decide the augmentation of an epoch."""
        return epoch_key(self.seed, epoch, AUGMENTATION)


class Batches(ABC):
    """A `BatchLoader`; subclasses make batches in main memory."""

    def __init__(self, schedule: Schedule, batch_size: int):
        self._schedule = schedule
        self._batch_size = batch_size
        self.num_samples = len(schedule.order(0))

    def __len__(self) -> int:
        return -(-self.num_samples // self._batch_size)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """See `BatchLoader.epoch`."""
        if epoch < 0:
            raise ValueError(f"epoch must be 0 or more, got {epoch}")
        if not 0 <= start_batch <= len(self):
            raise ValueError(
                f"start_batch must be 0 to {len(self)}, the batches of an epoch, got {start_batch}"
            )
        if start_batch == len(self):
            return iter(())
        return on_device(self._draw(epoch, start_batch), self._schedule.device)

    @abstractmethod
    def _draw(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        """A generator of the batches of an epoch from one on; closing it stops all background work."""


def on_device(batches: Iterator[Batch], device: torch.device | None) -> Iterator[Batch]:
    """Batches on a device, copied one ahead of the caller where that can overlap with its computation.

    On CUDA the copy runs on a stream of its own, from page-locked memory, while the caller's stream computes
    with the batch before. `batches` is a generator and is closed with this one.
    """
    if device is None or device.type == "cpu":
        return batches
    if device.type == "cuda":
        return _overlapping(batches, device)
    return ((images.to(device), labels.to(device)) for images, labels in batches)


def _overlapping(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    copying = torch.cuda.Stream(device)

    def start_copy() -> Batch | None:
        batch = next(batches, None)
        if batch is None:
            return None
        with torch.cuda.stream(copying):
            return batch[0].to(device, non_blocking=True), batch[1].to(device, non_blocking=True)

    try:
        ahead = start_copy()
        while ahead is not None:
            batch, computing = ahead, torch.cuda.current_stream(device)
            computing.wait_stream(copying)
            for part in batch:
                part.record_stream(computing)  # the copying stream may not reuse its memory before
            ahead = start_copy()
            yield batch
    finally:
        batches.close()  # type: ignore[attr-defined]
