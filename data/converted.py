"""Data sets that are converted on first use, and kept in a cache folder."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.beton_index import BetonFile, inspect_beton
from data.beton_writer import write_images
from data.encode import WriteSettings
from data.images import ImageList
from data.info import DataError
from data.manifest import manifest_path, read_manifest, sha256

USUAL_RESOLUTION = 500
"""Longer side of kept images, from ffcv's ImageNet recipe: enough to show them half as large."""

MANY = 2000
"""From so many images on a conversion says what it does and takes several processes."""

_CHECKED_IN_FULL = 64 << 20
"""Bytes up to which a cached file's checksum is compared; larger ones only by size and index."""


def cache_folder() -> Path:
    """Where prepared data sets are kept: RECURRENT_VISION_CACHE, or a folder in the user's cache."""
    if given := os.environ.get("RECURRENT_VISION_CACHE"):
        return Path(os.path.expanduser(given)).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "recurrent-vision-search"


def folder_settings(image_size: int) -> WriteSettings:
    """How image folders are kept: twice as large as they are shown, in steps of 500 pixels."""
    return WriteSettings("jpg", max_resolution=-(-2 * image_size // USUAL_RESOLUTION) * USUAL_RESOLUTION)


def cached_name(dataset: str, *origins: str) -> str:
    """Name of what is kept of a data set from these folders."""
    return f"{dataset}-{hashlib.sha256(os.fsencode(chr(0).join(origins))).hexdigest()[:8]}"


def cached_beton(
    name: str,
    images: ImageList,
    key: str,
    settings: WriteSettings,
    notes: Callable[[], dict[str, Any]] = dict,
) -> BetonFile:
    """The .beton file NAME.beton of these images in the cache folder, written where it is missing or stale.

    Args:
        images: Not read unless the file has to be written.
        key: Named in errors.
        notes: Makes additions to the manifest, when the file is written.
    """
    path = cache_folder() / f"{name}.beton"
    try:
        problem = _problem(path, images, settings)
    except OSError as error:
        raise DataError(
            f"{key}: {path} cannot be read ({error.strerror}); "
            "set RECURRENT_VISION_CACHE to a folder that can be read and written"
        ) from error
    if problem is not None:
        if problem:
            warnings.warn(f"cached file {path} {problem}; writing it again", stacklevel=2)
        _write(path, images, key, settings, notes)
    return inspect_beton(path, key)


def _problem(path: Path, images: ImageList, settings: WriteSettings) -> str | None:
    """Why a cached file can't be used, "" if it simply isn't there, None if it is good."""
    manifest = read_manifest(path)
    if not path.exists() and not manifest_path(path).exists():
        return ""
    if not path.exists() or manifest is None:
        return "is incomplete"
    if manifest.get("settings") != asdict(settings):
        return "is of another version"
    if manifest["class_names"] != list(images.class_names):
        return f"has other classes than {images.origin}, or in another order"
    if manifest.get("fingerprint") != images.fingerprint:
        return f"is older than {images.origin}"
    size = path.stat().st_size
    if size != manifest["bytes"]:
        return f"has {size} bytes instead of {manifest['bytes']}"
    if size <= _CHECKED_IN_FULL and sha256(path) != manifest["sha256"]:
        return "has another checksum than when it was written"
    return None


def _write(
    path: Path, images: ImageList, key: str, settings: WriteSettings, notes: Callable[[], dict[str, Any]]
) -> None:
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if _problem(path, images, settings) is None:  # another process has written it meanwhile
                return
            many = len(images.labels) >= MANY and settings.write_mode != "raw"
            if many:
                print(f"Converting {len(images.labels)} images of {images.origin} to {path}", file=sys.stderr)
            processes = max(1, os.cpu_count() or 1) if many else 1
            write_images(path, images, settings, notes=notes(), processes=processes)
    except OSError as error:
        raise DataError(
            f"{key}: {path} cannot be written ({error.strerror}); "
            "set RECURRENT_VISION_CACHE to a folder that can be written"
        ) from error
    except DataError as error:
        hint = (
            "" if "cannot be written" not in str(error) else "; set RECURRENT_VISION_CACHE to another folder"
        )
        raise DataError(f"{key}: {error}{hint}") from error
