"""Settings of a run: which images, and how they are prepared."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from data import LoadingOptions
from trainable.config.base import Settings


class DataSettings(Settings):
    """Which images a run sees, and how they are prepared."""

    dataset: Literal["cifar10", "cifar100", "digits", "ffcv", "imagenet", "imagenet_kaggle", "imagenet_small"]
    """Keyword of the data set: a key of data.DATASETS."""

    dataset_path: str | None = None
    """Training data: the data set's folder, which is converted to .beton files on first use, or a training
    .beton file. `digits` is embedded and has none."""

    dataset_val_path: str | None = None
    """Validation data: a folder or a .beton file; needed where `dataset_path` doesn't hold it too."""

    image_size: int | None = Field(default=None, ge=8)
    """Side of the square images the network sees, in pixels. Left out: the data set's own (224 for ImageNet
    and ffcv, 32 for cifar and digits)."""

    loader: Literal["ffcv", "torch"] = "ffcv"
    """`ffcv`, or `torch` for machines where ffcv cannot be installed: the same images in the same order with
    the same crops, more slowly."""

    crop_area: float | None = Field(default=None, gt=0, le=1)
    """Smallest share of an image that a training crop covers. Left out: the data set's own (0.08 for ImageNet
    and ffcv, 0.6 for cifar). Larger is milder."""

    color_jitter: float = Field(default=0.0, ge=0, lt=1)
    """Brightness, contrast and saturation of each training image are scaled by a factor within 1 - this and
    1 + this; 0 leaves them alone."""

    grey_probability: float = Field(default=0.0, ge=0, le=1)
    """Share of training images that are shown without colour."""

    first_size: int | None = Field(default=None, ge=8)
    """Progressive resizing: side of the training images in the first epoch, in pixels; it grows to
    `image_size`. Smaller images make early epochs cheaper; validation is always at full size."""

    resize_epochs: int | None = Field(default=None, gt=0)
    """Progressive resizing: epochs until training images have their full size."""

    image_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Number format of the images that the loader yields. 16 bits halve the memory and the copy to a GPU; the
    network must then compute in mixed precision, or convert them."""

    channels_last: bool = False
    """Lay images out with their channels last in memory, the order that GPU convolutions like best."""

    @model_validator(mode="after")
    def _data_settings_fit_together(self) -> Self:
        if (self.first_size is None) != (self.resize_epochs is None):
            raise ValueError("first_size and resize_epochs go together: give both or neither")
        if self.first_size and self.image_size and self.first_size > self.image_size:
            raise ValueError(
                f"first_size must be at most image_size ({self.image_size}), got {self.first_size}"
            )
        return self

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
