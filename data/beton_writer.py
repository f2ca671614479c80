"""Write .beton files with ffcv's writer: all or nothing, and a manifest beside each."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from data.encode import Encoded, WriteMode, WriteSettings, encode_all
from data.ffcv_setup import require_ffcv
from data.images import ArrayImages, ImageList
from data.info import DataError
from data.manifest import MANIFEST_VERSION, manifest_path, sha256

LARGEST_IMAGE = 8 << 20
"""Bytes of a page of the file: no encoded image may be larger."""

Corrupt = Literal["refuse", "skip"]


def write_images(
    path: str | Path,
    images: ImageList,
    settings: WriteSettings = WriteSettings(),  # noqa: B008
    *,
    processes: int = 1,
    corrupt: Corrupt = "refuse",
    notes: dict[str, Any] | None = None,
    progress: Callable[[int], None] = lambda done: None,
    page_size: int = LARGEST_IMAGE,
) -> Path:
    """Write images to a .beton file and its manifest, replacing what was there when both are complete.

    Args:
        path: The file; folders above it are made.
        images: What is written, in this order.
        settings: How images are stored.
        processes: Processes that read and encode; they change no byte of the file.
        corrupt: `skip` leaves images that can't be decoded out and names them in the manifest.
        notes: Added to the manifest.
        progress: Called with the number of images done.
        page_size: Bytes, a power of two of at least 2 MiB; the largest image that fits.

    Raises:
        DataError: an image can't be used, there are none, or the file can't be written; nothing is left.
    """
    require_ffcv()
    from data.ffcv_writer import write_encoded

    path = Path(path).expanduser().absolute()
    labels = images.labels
    if not len(labels):
        raise DataError(f"{path}: there are no samples to write")
    for index, label in enumerate(labels):
        if not 0 <= label < len(images.class_names):
            raise DataError(
                f"{images.name(index)}: has label {label}; there are {len(images.class_names)} classes"
            )
    skipped: list[str] = []
    kept: list[int] = []

    def good() -> Any:
        done = 0
        for index, item in enumerate(encode_all(images, settings, processes)):
            done += 1
            progress(done)
            if isinstance(item, Encoded):
                if len(item.content) > page_size:
                    item = DataError(
                        f"{images.name(index)}: takes {len(item.content)} bytes, at most {page_size} fit; "
                        "set a maximum resolution"
                    )
                else:
                    kept.append(int(labels[index]))
                    yield item, int(labels[index])
                    continue
            if corrupt == "refuse":
                raise item
            skipped.append(str(item))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            for abandoned in path.parent.glob(f".{path.name}.*.tmp*"):  # of a writer that was killed
                abandoned.unlink(missing_ok=True)
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
            temporary_manifest = manifest_path(temporary)
            try:
                write_encoded(temporary, good(), len(labels), page_size)
                if not kept:
                    raise DataError(f"{path}: no image could be decoded, the first: {skipped[0]}")
                counts = np.bincount(kept, minlength=len(images.class_names)).tolist()
                manifest = {
                    "version": MANIFEST_VERSION,
                    "class_names": list(images.class_names),
                    "num_samples": len(kept),
                    "samples_per_class": counts,
                    "skipped": skipped,
                    "settings": asdict(settings),
                    "source": images.origin,
                    "fingerprint": images.fingerprint,
                    "bytes": temporary.stat().st_size,
                    "sha256": sha256(temporary),
                    **(notes or {}),
                }
                temporary_manifest.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
                for written in (temporary, temporary_manifest):
                    with written.open("rb") as file:
                        os.fsync(file.fileno())
                # Killed in between, this leaves no file rather than one with another's manifest, or none.
                path.unlink(missing_ok=True)
                os.replace(temporary_manifest, manifest_path(path))
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
                temporary_manifest.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); nothing is left of it"
        ) from error
    return path


def write_beton(
    path: str | Path,
    samples: Sequence[tuple[NDArray[np.uint8], int]],
    class_names: Sequence[str],
    *,
    write_mode: WriteMode = "raw",
    page_size: int = LARGEST_IMAGE,
    notes: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Write (pixels (H, W, 3), label) pairs to a .beton file; for small data sets. See `write_images`.

    Args:
        samples: Images may differ in size; labels are positions in class_names.
        settings: Further fields of WriteSettings.
    """
    pixels = np.empty(len(samples), object)
    for index, (image, _) in enumerate(samples):
        pixels[index] = image
    labels = np.array([label for _, label in samples], np.int64)
    images = ArrayImages("samples", tuple(class_names), "", lambda: (pixels, labels))
    return write_images(path, images, WriteSettings(write_mode, **settings), notes=notes, page_size=page_size)
