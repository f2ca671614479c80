"""Look at a .beton file before it is trusted, and read it without ffcv.

The compiled reader takes everything in a file on trust: a wrong offset ends the process instead of raising.
`inspect_beton` checks all that it relies on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.images import decode
from data.info import DataError
from data.manifest import manifest_path, read_manifest

MAX_CLASSES = 100_000
"""A label above this is taken for damage rather than for a class."""

_VERSION = 2
_HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("table", "<u8"),
    ]
)
_FIELD = np.dtype([("type_id", "u1"), ("name", "u1", 16), ("arguments", "u1", 1024)])
_REGION = np.dtype([("sample_id", "<u8"), ("start", "<u8"), ("size", "<u8")])
_INT, _IMAGE = 1, 2
_BYTES = [("ptr", "<u8"), ("size", "<u8")]
_ROWS = {
    0: np.dtype("<f8"),
    _INT: np.dtype("<i8"),
    _IMAGE: np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")]),
    3: np.dtype(_BYTES),
    4: np.dtype("<u8"),
    5: np.dtype(_BYTES),
    6: np.dtype("<u8"),
}
"""What each of ffcv's field types keeps per image in the index."""

JPEG = 0
"""Storage mode of an image; the other one is raw pixels."""


@dataclass(frozen=True)
class BetonFile:
    """What a .beton file holds."""

    path: str
    num_samples: int
    num_classes: int
    class_names: tuple[str, ...] | None
    """From the manifest; None where there is none."""


@dataclass(frozen=True)
class BetonImages:
    """The images of a .beton file, read without ffcv; a list of images as in `data.images`."""

    file: BetonFile

    @cached_property
    def _opened(self) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.int64], NDArray[np.uint64]]:
        """Bytes of the file, image entries, labels, and the size in bytes of each image."""
        path = Path(self.file.path)
        fields, metadata, regions = _read_index(path, path.stat().st_size)
        images = metadata[fields["image"][1]]
        at = np.searchsorted(regions["start"], images["data_ptr"])
        content = np.memmap(path, np.uint8, mode="r")
        return content, images, metadata[fields["label"][1]].astype(np.int64), regions["size"][at]

    @property
    def origin(self) -> str:
        """Path of the file."""
        return self.file.path

    @property
    def class_names(self) -> tuple[str, ...]:
        """From the manifest, or numbers."""
        return self.file.class_names or tuple(str(i) for i in range(self.file.num_classes))

    @property
    def fingerprint(self) -> str:
        """Changes when the file does."""
        return str(_identity(Path(self.file.path)))

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,): positions in class_names."""
        return self._opened[2]

    def name(self, index: int) -> str:
        """Path and number."""
        return f"{self.file.path}: image {index}"

    def stored(self, index: int) -> bytes | None:
        """Bytes of an image that is stored as a JPEG."""
        content, images, _, sizes = self._opened
        start = int(images["data_ptr"][index])
        return content[start : start + int(sizes[index])].tobytes() if images["mode"][index] == JPEG else None

    def read(self, index: int) -> NDArray[np.uint8]:
        """Pixels (H, W, 3)."""
        content, images, _, _ = self._opened
        encoded, height, width = self.stored(index), int(images["height"][index]), int(images["width"][index])
        if encoded is None:
            start = int(images["data_ptr"][index])
            return np.array(content[start : start + height * width * 3]).reshape(height, width, 3)
        pixels = decode(encoded, self.name(index))
        if pixels.shape != (height, width, 3):
            raise DataError(f"{self.name(index)} has another size than the index says; write the file again")
        return pixels

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file}  # an opened file doesn't travel to other processes


def inspect_beton(path: str | Path, key: str) -> BetonFile:
    """Check a .beton file against everything a loader relies on; `key` is named in errors."""
    given = Path(os.path.expanduser(path))
    try:
        if given.is_dir():
            raise DataError(f"{key}: {given} is a folder; give a .beton file")
        if not given.is_file():
            raise DataError(f"{key}: no file at {given}; give a .beton file")
        given = given.resolve()
        return _inspect(str(given), given.stat().st_size, (_identity(given), _identity(manifest_path(given))))
    except _Unfit as error:
        raise DataError(f"{key}: {given} {error}") from None
    except OSError as error:
        raise DataError(f"{key}: {given} cannot be read: {error.strerror}") from error


class _Unfit(Exception):
    """Why a file can't be used, to be prefixed with the key and the path."""


def _demand(condition: Any, problem: str) -> None:
    if not condition:
        raise _Unfit(problem)


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Changes when a file is replaced or written to; None without a file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=64)
def _inspect(path: str, size: int, identity: object) -> BetonFile:
    manifest = read_manifest(Path(path))
    if manifest is not None:
        expected = manifest["bytes"]
        _demand(
            size == expected,
            f"has {size} bytes, its manifest says {expected}: it is incomplete, or the .json beside it is of "
            "another file; write it again or delete the .json",
        )
    fields, metadata, regions = _read_index(Path(path), size)
    _demand(
        fields.get("image", (None,))[0] == _IMAGE,
        f"has no image field called 'image'; it has {_names(fields)}",
    )
    _demand(
        fields.get("label", (None,))[0] == _INT,
        f"has no integer field called 'label'; it has {_names(fields)}",
    )
    _check_images(metadata[fields["image"][1]], regions)

    labels = metadata[fields["label"][1]]
    names = None if manifest is None else tuple(map(str, manifest["class_names"]))
    allowed = MAX_CLASSES if names is None else len(names)
    bad = (labels < 0) | (labels >= allowed)
    first = int(bad.argmax())
    _demand(
        not bad.any(),
        f"has label {labels[first]} at image {first}; labels are integers from 0 to {allowed - 1}",
    )
    num_classes = int(labels.max()) + 1 if names is None else len(names)
    return BetonFile(path, len(labels), num_classes, names)


def _read_index(path: Path, size: int) -> tuple[dict[str, tuple[int, str]], NDArray[Any], NDArray[Any]]:
    """Fields (name -> type and column), one row of metadata per image, and the regions that hold pixels."""
    damaged = "is not a .beton file, or is incomplete"
    _demand(size >= _HEADER.itemsize, damaged)
    header = np.fromfile(path, _HEADER, count=1)[0]
    count, table = int(header["num_samples"]), int(header["table"])
    num_fields, page_size = int(header["num_fields"]), int(header["page_size"])
    metadata_start = _HEADER.itemsize + num_fields * _FIELD.itemsize
    _demand(header["version"] == _VERSION and 1 <= num_fields <= 64, damaged)
    _demand(page_size and page_size & (page_size - 1) == 0, damaged)
    _demand(metadata_start <= table <= size and (size - table) % _REGION.itemsize == 0, damaged)
    _demand(count > 0, "holds no images")

    descriptors = np.fromfile(path, _FIELD, count=num_fields, offset=_HEADER.itemsize)
    raw_names = [row.tobytes().split(b"\0")[0] for row in descriptors["name"]]
    _demand(all(name.isascii() and name for name in raw_names), damaged)
    names = [name.decode("ascii") for name in raw_names]
    types = [int(type_id) for type_id in descriptors["type_id"]]
    for name, type_id in zip(names, types, strict=True):
        _demand(
            type_id in _ROWS, f"has the field {name!r} of a custom type; fields must be of ffcv's own types"
        )
    row = np.dtype([(f"f{i}", _ROWS[type_id]) for i, type_id in enumerate(types)], align=True)
    _demand(metadata_start + count * row.itemsize <= table, damaged)
    metadata = np.fromfile(path, row, count=count, offset=metadata_start)
    regions = np.sort(np.fromfile(path, _REGION, offset=table), order="start")
    _demand(len(regions) and (regions["start"] <= table).all() and (regions["size"] <= table).all(), damaged)
    _demand((regions["start"] + regions["size"] <= table).all(), damaged)
    return (
        {name: (type_id, f"f{i}") for i, (name, type_id) in enumerate(zip(names, types, strict=True))},
        metadata,
        regions,
    )


def _check_images(images: NDArray[Any], regions: NDArray[Any]) -> None:
    """Every image must lie in a region of the file, and raw pixels must fill theirs."""
    at = np.minimum(np.searchsorted(regions["start"], images["data_ptr"]), len(regions) - 1)
    pixels = images["height"].astype(np.uint64) * images["width"].astype(np.uint64) * np.uint64(3)
    misplaced = regions["start"][at] != images["data_ptr"]
    misfit = (images["mode"] != 0) & (regions["size"][at] != pixels)
    bad = misplaced | misfit | (images["mode"] > 1) | (pixels == 0)
    _demand(
        not bad.any(), f"is damaged: its entry for image {int(bad.argmax())} makes no sense; write it again"
    )


def _names(fields: dict[str, tuple[int, str]]) -> str:
    return ", ".join(sorted(fields))
