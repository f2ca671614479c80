"""The two ffcv operations of a pipeline: image field to normalised tensor, label field to tensor.

Import after `ffcv_setup.require_ffcv()`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from numpy.typing import NDArray
from torch import Tensor

from data.info import DataError, Preprocessing
from data.kernels import decode_images


@dataclass(frozen=True)
class Pipeline:
    """Everything about a loader that lasts longer than an epoch."""

    path: str
    batch_size: int
    """Images per batch on this rank."""

    preprocessing: Preprocessing
    augment: bool
    """Random resized crop and horizontal flip instead of the central crop."""

    threads: int
    """Threads that decode one batch."""

    pin_memory: bool
    """Page-locked batches, for asynchronous copies to a GPU."""


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="decode")


class ImageDecoder(SimpleRGBImageDecoder):
    """Field `image` to normalised float32 (B, 3, S, S)."""

    def __init__(self, pipeline: Pipeline):
        super().__init__()
        self.pipeline = pipeline
        mean, std = np.array(pipeline.preprocessing.mean), np.array(pipeline.preprocessing.std)
        self.table = ((np.arange(256)[:, None] - mean) / std).astype(np.float32)

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, None]:
        size = self.pipeline.preprocessing.image_size
        return replace(previous_state, jit_mode=False, shape=(3, size, size), dtype=torch.float32), None

    def generate_code(self) -> Callable[..., Tensor]:
        return self.decode

    def decode(self, indices: NDArray[np.int64], _: None, metadata: Any, storage: Any) -> Tensor:
        """Decode the images `indices`; storage is (file, region starts, region sizes, augmentation key)."""
        file, region_starts, region_sizes, key = storage
        pipeline, size = self.pipeline, self.pipeline.preprocessing.image_size
        rows = metadata[indices]
        starts = rows["data_ptr"]
        lengths = region_sizes[np.searchsorted(region_starts, starts)]
        per_image = [starts, lengths, rows["mode"], rows["height"], rows["width"], indices]
        columns = [np.ascontiguousarray(column, dtype=np.int64) for column in per_image]
        images = torch.empty(len(indices), 3, size, size, pin_memory=pipeline.pin_memory)
        images_np, failed = images.numpy(), np.empty(len(indices), np.bool_)

        def decode_part(part: slice) -> None:
            decode_images(
                images_np[part], failed[part], np.asarray(file), *(column[part] for column in columns),
                self.table, pipeline.preprocessing.crop_ratio, pipeline.augment, np.uint64(key),
            )  # fmt: skip

        bounds = np.linspace(0, len(indices), pipeline.threads + 1).astype(int).tolist()
        parts = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False) if a < b]
        futures = [_pool(pipeline.threads).submit(decode_part, part) for part in parts]
        wait(futures)  # all of them, before an error lets go of their memory
        for future in futures:
            future.result()
        if failed.any():
            raise DataError(
                f"{pipeline.path}: image {indices[failed][0]} cannot be decoded; write the file again"
            )
        return images


class LabelDecoder(IntDecoder):
    """Field `label` to int64 (B,)."""

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, None]:
        return replace(previous_state, jit_mode=False, shape=(), dtype=torch.int64), None

    def generate_code(self) -> Callable[..., Tensor]:
        def decode(indices: NDArray[np.int64], _: None, metadata: Any, storage: Any) -> Tensor:
            return torch.from_numpy(metadata[indices].astype(np.int64))

        return decode
