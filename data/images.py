"""Images that are not in a .beton file yet: in folders, or in memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data.info import DataError


class ImageList(Protocol):
    """Images of one split, with labels and class names; picklable, so that processes can share the work."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of class i at position i."""

    @property
    def origin(self) -> str:
        """Where the images come from, for error messages: a path or a name."""

    @property
    def fingerprint(self) -> str:
        """Changes when the images do; what was made from them is then made again."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,): positions in class_names."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Pixels (H, W, 3) of an image; DataError names one that can't be decoded."""

    def name(self, index: int) -> str:
        """What to call an image in messages and lists."""

    def stored(self, index: int) -> bytes | None:
        """The bytes of an image that is stored as a JPEG file; None otherwise."""


@dataclass(frozen=True)
class FileImages:
    """Image files and their labels."""

    origin: str
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    """Paths relative to the origin, in the order of the data set."""

    file_labels: tuple[int, ...]
    fingerprint: str

    @cached_property  # the torch loader asks for every batch
    def labels(self) -> NDArray[np.int64]:
        """See ImageList."""
        return np.array(self.file_labels, np.int64)

    def name(self, index: int) -> str:
        """Path of a file."""
        return str(Path(self.origin) / self.files[index])

    def stored(self, index: int) -> bytes | None:
        """Bytes of a file that ends like a JPEG."""
        jpeg = Path(self.files[index]).suffix.lower() in (".jpg", ".jpeg")
        return self._content(index) if jpeg else None

    def read(self, index: int) -> NDArray[np.uint8]:
        """Decode a file to RGB."""
        return decode(self._content(index), self.name(index))

    def _content(self, index: int) -> bytes:
        path = self.name(index)
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None


@dataclass(frozen=True)
class ArrayImages:
    """Images of one size in memory, made when they are first asked for."""

    origin: str
    class_names: tuple[str, ...]
    fingerprint: str
    load: Callable[[], tuple[NDArray[np.uint8], NDArray[np.int64]]]
    """Returns pixels (N, H, W, 3) and labels (N,)."""

    @cached_property
    def _loaded(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        return self.load()

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(N, H, W, 3)."""
        return self._loaded[0]

    @property
    def labels(self) -> NDArray[np.int64]:
        """See ImageList."""
        return self._loaded[1]

    def name(self, index: int) -> str:
        """Origin and number."""
        return f"{self.origin}, image {index}"

    def stored(self, index: int) -> None:
        """Nothing: these are pixels."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """One image."""
        return self.pixels[index]


@dataclass(frozen=True)
class Subset:
    """Some images of a list."""

    whole: ImageList
    indices: tuple[int, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """All of the list, also those without an image here."""
        return self.whole.class_names

    @property
    def origin(self) -> str:
        """That of the list."""
        return self.whole.origin

    @property
    def fingerprint(self) -> str:
        """That of the list."""
        return self.whole.fingerprint

    @property
    def labels(self) -> NDArray[np.int64]:
        """See ImageList."""
        return self.whole.labels[list(self.indices)]

    def name(self, index: int) -> str:
        """That in the list."""
        return self.whole.name(self.indices[index])

    def stored(self, index: int) -> bytes | None:
        """That in the list."""
        return self.whole.stored(self.indices[index])

    def read(self, index: int) -> NDArray[np.uint8]:
        """That in the list."""
        return self.whole.read(self.indices[index])


def decode(content: bytes, name: str) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) of an encoded image; grey, palette and CMYK become RGB, transparency is dropped.

    Of 16 bits the upper 8 are kept. Images are not turned as EXIF says: ffcv and torchvision don't either.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith("I;16"):  # convert() would cut off at 255: nearly all white
                upper = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(upper[:, :, None], 3, axis=2)
            if image.mode in ("I", "F"):
                raise ValueError("its pixels have 32 bits, whose range isn't known; store 8 or 16")
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not a known image format" if "cannot identify" in str(error) else str(error)
        raise DataError(f"{name}: cannot be decoded ({reason})") from None


def check_classes(train: Sequence[str], validation: Sequence[str], where: str) -> None:
    """Raise DataError unless both splits have the same classes; `where` names the validation images."""
    for names, others, has, lacks in ((train, validation, "training", "validation"),
                                      (validation, train, "validation", "training")):  # fmt: skip
        if missing := [name for name in names if name not in set(others)]:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(
                f"dataset_val_path: {where}: class {missing[0]}{more} of the {has} images "
                f"is not among the {lacks} images"
            )
