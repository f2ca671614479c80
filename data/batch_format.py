"""The form of a batch: which number stands for a pixel value, and where in memory it lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.info import Preprocessing
from data.options import ImageDtype


@dataclass(frozen=True)
class BatchFormat:
    """Normalisation, number format and memory layout of the images of a loader."""

    preprocessing: Preprocessing
    dtype: ImageDtype = "float32"
    channels_last: bool = False
    pin_memory: bool = False
    """Page-locked batches, for asynchronous copies to a GPU."""

    @cached_property
    def table(self) -> NDArray[Any]:
        """(256, 3): what a pixel value becomes in each channel; 16-bit numbers as their bits (uint16)."""
        mean, std = np.array(self.preprocessing.mean), np.array(self.preprocessing.std)
        exact = torch.from_numpy((np.arange(256)[:, None] - mean) / std)
        values = exact.to(torch.float32).to(self.torch_dtype)
        return _numpy(values)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The number format as torch calls it."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    def empty(self, count: int, side: int) -> tuple[Tensor, NDArray[Any]]:
        """A batch (count, 3, side, side) to be filled, and its memory as rows (count, 3 * side * side)."""
        shape = (count, side, side, 3) if self.channels_last else (count, 3, side, side)
        memory = torch.empty(shape, dtype=self.torch_dtype, pin_memory=self.pin_memory)
        rows = _numpy(memory.view(count, -1))
        return (memory.permute(0, 3, 1, 2) if self.channels_last else memory), rows

    def strides(self, side: int) -> tuple[int, int]:
        """Steps within a row from channel to channel and from pixel to pixel."""
        return (1, 3) if self.channels_last else (side * side, 1)


def _numpy(values: Tensor) -> NDArray[Any]:
    """The memory of a tensor; NumPy has no bfloat16, so that 16-bit numbers come as uint16."""
    if values.dtype == torch.float32:
        return values.numpy()
    return values.view(torch.int16).numpy().view(np.uint16)
