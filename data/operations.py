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

from data.augment import Augmentation, views_of
from data.batch_format import BatchFormat
from data.images import decode
from data.info import DataError
from data.kernels import decode_images
from data.pixels import shown, to_batch


@dataclass(frozen=True)
class Pipeline:
    """Everything about a loader that lasts longer than an epoch."""

    path: str
    batch_size: int
    """Images per batch on this rank."""

    format: BatchFormat
    augmentation: Augmentation | None
    """None shows the central crop."""

    threads: int
    """Threads that decode one batch."""


@dataclass(frozen=True)
class EpochState:
    """What the operations need to know of the epoch they work for."""

    key: int
    """Decides the augmentation."""

    image_size: int
    """Side of the images, in pixels."""


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="decode")


class ImageDecoder(SimpleRGBImageDecoder):
    """Field `image` to normalised (B, 3, S, S)."""

    def __init__(self, pipeline: Pipeline):
        super().__init__()
        self.pipeline = pipeline

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, None]:
        form = self.pipeline.format
        size = form.preprocessing.image_size
        return replace(previous_state, jit_mode=False, shape=(3, size, size), dtype=form.torch_dtype), None

    def generate_code(self) -> Callable[..., Tensor]:
        return self.decode

    def decode(self, indices: NDArray[np.int64], _: None, metadata: Any, storage: Any) -> Tensor:
        """Decode the images `indices`; storage is (file, region starts, region sizes, EpochState)."""
        file, region_starts, region_sizes, state = storage
        pipeline, form = self.pipeline, self.pipeline.format
        rows = metadata[indices]
        starts = rows["data_ptr"]
        lengths = region_sizes[np.searchsorted(region_starts, starts)]
        columns: list[NDArray[Any]] = [
            np.ascontiguousarray(column, dtype=np.int64)
            for column in (starts, lengths, rows["mode"], rows["height"], rows["width"])
        ]
        ratio = form.preprocessing.crop_ratio
        views = views_of(pipeline.augmentation, ratio, state.key, indices, *columns[3:])
        columns += [views.crops, views.flips, views.colors]
        images, pixels = form.empty(len(indices), state.image_size)
        failed = np.empty(len(indices), np.bool_)

        def decode_part(part: slice) -> None:
            decode_images(
                pixels[part], failed[part], np.asarray(file), *(column[part] for column in columns),
                form.table, state.image_size, *form.strides(state.image_size),
            )  # fmt: skip

        bounds = np.linspace(0, len(indices), pipeline.threads + 1).astype(int).tolist()
        parts = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False) if a < b]
        futures = [_pool(pipeline.threads).submit(decode_part, part) for part in parts]
        wait(futures)  # all of them, before an error lets go of their memory
        for future in futures:
            future.result()
        for i in np.flatnonzero(failed):
            # The C decoder fails on mere warnings too, such as stray bytes before a marker.
            start, length, height, width = (int(columns[k][i]) for k in (0, 1, 3, 4))
            name = f"{pipeline.path}: image {indices[i]}"
            image = decode(np.asarray(file)[start : start + length].tobytes(), name)
            if image.shape[:2] != (height, width):
                raise DataError(f"{name} has another size than the index says; write the file again")
            view = shown(image, views.crops[i], bool(views.flips[i]), views.colors[i], state.image_size)
            images[i] = to_batch(view[None], form)[0]
        return images


class LabelDecoder(IntDecoder):
    """Field `label` to int64 (B,)."""

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, None]:
        return replace(previous_state, jit_mode=False, shape=(), dtype=torch.int64), None

    def generate_code(self) -> Callable[..., Tensor]:
        def decode(indices: NDArray[np.int64], _: None, metadata: Any, storage: Any) -> Tensor:
            return torch.from_numpy(metadata[indices].astype(np.int64))

        return decode
