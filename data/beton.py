"""The .beton files of ffcv: write one, and look at one before it is trusted.

Beside a file that was written here lies NAME.beton.json, its manifest: class names, number of images, size
and checksum. Files from elsewhere need none. `inspect_beton` checks what the compiled reader takes on trust,
because there a wrong offset ends the process instead of raising.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from data.ffcv_setup import require_ffcv
from data.info import DataError

MANIFEST_VERSION = 1
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


@dataclass(frozen=True)
class BetonFile:
    """What a .beton file holds."""

    path: str
    num_samples: int
    num_classes: int
    class_names: tuple[str, ...] | None
    """From the manifest; None where there is none."""


def manifest_path(path: Path) -> Path:
    """Where the manifest of a .beton file lies."""
    return path.with_name(path.name + ".json")


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a .beton file, or None where there is none or it can't be read."""
    try:
        manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(manifest, dict) and manifest.get("version") == MANIFEST_VERSION
    return manifest if ours and {"class_names", "bytes", "sha256"} <= manifest.keys() else None


def sha256(path: Path) -> str:
    """Checksum of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_beton(
    path: str | Path,
    samples: Sequence[tuple[NDArray[np.uint8], int]],
    class_names: Sequence[str],
    *,
    write_mode: str = "raw",
    jpeg_quality: int = 90,
    max_resolution: int | None = None,
    page_size: int = 8 << 20,
    notes: dict[str, Any] | None = None,
) -> Path:
    """Write (image, label) pairs to a .beton file and its manifest, replacing what was there at once.

    Runs in this process, without worker processes or a progress bar: fit for small data sets.

    Args:
        samples: Images as uint8 (height, width, 3) arrays or PIL images, labels as positions in class_names.
        write_mode: "raw" stores pixels, "jpg" compresses; see ffcv's RGBImageField.
        max_resolution: Images with a longer side are shrunk to this many pixels.
        page_size: Bytes, a power of two of at least 2 MiB; the largest image that fits.
        notes: Added to the manifest.
    """
    require_ffcv()
    from data.beton_writer import write_samples

    path = Path(path).expanduser().absolute()
    if not len(samples):
        raise DataError(f"{path}: there are no samples to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        temporary_manifest = manifest_path(temporary)
        try:
            field_options = {
                "write_mode": write_mode,
                "jpeg_quality": jpeg_quality,
                "max_resolution": max_resolution,
            }
            write_samples(temporary, samples, len(class_names), page_size, **field_options)
            manifest = {
                "version": MANIFEST_VERSION,
                "class_names": list(class_names),
                "num_samples": len(samples),
                "bytes": temporary.stat().st_size,
                "sha256": sha256(temporary),
                **(notes or {}),
            }
            temporary_manifest.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            for written, final in ((temporary, path), (temporary_manifest, manifest_path(path))):
                with written.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(written, final)
        finally:
            temporary.unlink(missing_ok=True)
            temporary_manifest.unlink(missing_ok=True)
    return path


def inspect_beton(path: str | Path, key: str) -> BetonFile:
    """Check a .beton file against everything a loader relies on; `key` is named in errors."""
    given = Path(path).expanduser()
    if given.is_dir():
        raise DataError(f"{key}: {given} is a folder; give a .beton file")
    if not given.is_file():
        raise DataError(f"{key}: no file at {given}; give a .beton file")
    given = given.resolve()
    try:
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

    require_ffcv()
    from ffcv.types import TYPE_ID_HANDLER, get_handlers, get_metadata_type

    descriptors = np.fromfile(path, _FIELD, count=num_fields, offset=_HEADER.itemsize)
    raw_names = [row.tobytes().split(b"\0")[0] for row in descriptors["name"]]
    _demand(all(name.isascii() and name for name in raw_names), damaged)
    names = [name.decode("ascii") for name in raw_names]
    types = [int(type_id) for type_id in descriptors["type_id"]]
    for name, type_id in zip(names, types, strict=True):
        known = TYPE_ID_HANDLER.get(type_id) is not None
        _demand(known, f"has the field {name!r} of a custom type; fields must be of ffcv's own types")
    row = get_metadata_type(get_handlers(descriptors))
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
