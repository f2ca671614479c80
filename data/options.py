"""How images are loaded: everything a user may choose besides the data set, its paths and its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data.info import DataError

LoaderName = Literal["ffcv", "torch"]
ImageDtype = Literal["float32", "float16", "bfloat16"]

SIZE_STEP = 32
"""Image sizes between the first and the last are multiples of this: few sizes, so that kernels stay tuned."""


@dataclass(frozen=True)
class LoadingOptions:
    """Augmentation of training images, and the form in which batches arrive."""

    loader: LoaderName = "ffcv"
    """`ffcv`, or `torch` for machines where ffcv can't be installed: the same images, more slowly."""

    crop_area: float | None = None
    """Smallest share of an image's area that a training crop covers; None: the data set's own (0.08)."""

    color_jitter: float = 0.0
    """Brightness, contrast and saturation are each scaled by a factor within 1 - this .. 1 + this."""

    grey_probability: float = 0.0
    """Share of training images that are shown without colour."""

    first_size: int | None = None
    """Progressive resizing: side of the training images in the first epoch, in pixels."""

    resize_epochs: int | None = None
    """Progressive resizing: epochs until training images have their full size."""

    dtype: ImageDtype = "float32"
    """Number format of the images."""

    channels_last: bool = False
    """Lay images out as (B, S, S, 3) in memory; their shape stays (B, 3, S, S)."""

    def __post_init__(self) -> None:
        if self.loader not in ("ffcv", "torch"):
            raise DataError(f"loader: must be ffcv or torch, got {self.loader!r}")
        if self.dtype not in ("float32", "float16", "bfloat16"):
            raise DataError(f"image_dtype: must be float32, float16 or bfloat16, got {self.dtype!r}")
        if self.crop_area is not None and not 0 < self.crop_area <= 1:
            raise DataError(f"crop_area: must be above 0 and at most 1, got {self.crop_area}")
        if not 0 <= self.color_jitter < 1:
            raise DataError(f"color_jitter: must be at least 0 and below 1, got {self.color_jitter}")
        if not 0 <= self.grey_probability <= 1:
            raise DataError(f"grey_probability: must be from 0 to 1, got {self.grey_probability}")
        if (self.first_size is None) != (self.resize_epochs is None):
            raise DataError("first_size and resize_epochs go together: give both or neither")
        if self.resize_epochs is not None and self.resize_epochs < 1:
            raise DataError(f"resize_epochs: must be 1 or more, got {self.resize_epochs}")

    def training_size(self, epoch: int, full_size: int) -> int:
        """Side of the training images in an epoch: grows linearly, as in ffcv's ImageNet recipe."""
        if self.first_size is None or self.resize_epochs is None or epoch >= self.resize_epochs:
            return full_size
        size = self.first_size + (full_size - self.first_size) * epoch / self.resize_epochs
        return min(full_size, max(self.first_size, round(size / SIZE_STEP) * SIZE_STEP))
