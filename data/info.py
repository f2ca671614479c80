"""What a data set tells its users: errors, facts, preprocessing and the two loaders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

RGB = tuple[float, float, float]


class DataError(ValueError):
    """A data set, a path or a size that a user gave is wrong; the message names the key."""


@dataclass(frozen=True)
class Preprocessing:
    """From a stored image to what the network sees; kept in checkpoints so that tests see the same.

    A central square of `crop_ratio` times the shorter side is resized to `image_size`; then every channel
    becomes (value - mean) / std, where value is 0..255. `data.pixels.prepare_image` does it to one image.
    """

    image_size: int
    """Side of the square image, in pixels."""

    mean: RGB
    """Red, green and blue mean, in 0..255 units."""

    std: RGB
    """Red, green and blue standard deviation, in 0..255 units."""

    crop_ratio: float = 1.0
    """Side of the central crop over the shorter side of the stored image (validation; 224/256 is usual)."""

    interpolation: str = "area"
    """How pixels are resized: "area" is OpenCV's INTER_AREA, the one that ffcv has."""

    def __post_init__(self) -> None:
        if self.interpolation != "area":
            raise ValueError(f"interpolation: must be 'area', got {self.interpolation!r}")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The inverse of to_dict; unknown or missing keys are an error."""
        expected = {field.name for field in fields(cls)}
        if set(values) | {"interpolation"} != expected:  # older checkpoints don't name it
            raise ValueError(f"preprocessing has the keys {sorted(values)}, expected {sorted(expected)}")
        return cls(
            image_size=int(values["image_size"]),
            mean=_rgb(values["mean"]),
            std=_rgb(values["std"]),
            crop_ratio=float(values["crop_ratio"]),
            interpolation=str(values.get("interpolation", "area")),
        )


def _rgb(values: Any) -> RGB:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


@dataclass(frozen=True)
class DataInfo:
    """Facts about a data set that hold before any image is read."""

    dataset: str
    """Keyword: a key of `data.DATASETS`."""

    class_names: tuple[str, ...]
    """Name of class i at position i; "0", "1", ... where the files don't name them."""

    num_train: int
    """Images of the training file."""

    num_validation: int
    """Images of the validation file."""

    train_path: str
    """Absolute path of what is read in training: a .beton file, or with the torch loader maybe a folder."""

    validation_path: str
    """Absolute path of what is read in validation."""

    preprocessing: Preprocessing
    """Size and normalisation shared by training and validation."""

    @property
    def num_classes(self) -> int:
        """Outputs the network needs."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Side of the square images a loader yields, in pixels."""
        return self.preprocessing.image_size


class BatchLoader(Protocol):
    """One split, seen by one rank."""

    num_samples: int
    """Images this rank sees per epoch."""

    def __len__(self) -> int:
        """Batches per epoch on this rank."""

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of an epoch from batch `start_batch` on.

        Images are (B, 3, S, S), normalised, float32 and contiguous unless other options were given; labels
        (B,) int64. Both are on the device that was given. Every batch is its own memory and stays valid.
        Leaving the loop early stops the background work.
        """


@dataclass(frozen=True)
class Data:
    """An opened data set."""

    info: DataInfo
    train: BatchLoader
    validation: BatchLoader

    @property
    def preprocessing(self) -> Preprocessing:
        """What to store in a checkpoint, and to apply to any image shown to the network later."""
        return self.info.preprocessing
