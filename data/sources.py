"""Where images come from: each function returns two .beton files and how to show them."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from data.beton import BetonFile, inspect_beton, manifest_path, read_manifest, sha256, write_beton
from data.info import RGB, DataError, Preprocessing
from data.order import permutation

IMAGENET_MEAN: RGB = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD: RGB = (0.229 * 255, 0.224 * 255, 0.225 * 255)

DIGITS_VERSION = 1
"""Raise when the sample's pixels or split change: cached files of another version are written again."""


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    image_size: int
    dataset_path: str | None = None
    dataset_val_path: str | None = None


@dataclass(frozen=True)
class Source:
    """Two files and how to show them."""

    train: BetonFile
    validation: BetonFile
    preprocessing: Preprocessing


def cache_folder() -> Path:
    """Where prepared data sets are kept: RECURRENT_VISION_CACHE, or a folder in the user's cache."""
    if given := os.environ.get("RECURRENT_VISION_CACHE"):
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "recurrent-vision-search"


def given_files(request: Request) -> Source:
    """Two .beton files that the user names. Shown as ImageNet usually is (ffcv-imagenet's settings)."""
    for key in ("dataset_path", "dataset_val_path"):
        if getattr(request, key) is None:
            raise DataError(
                f"{key}: not given; dataset ffcv needs dataset_path and dataset_val_path, .beton files"
            )
    train = inspect_beton(str(request.dataset_path), "dataset_path")
    validation = inspect_beton(str(request.dataset_val_path), "dataset_val_path")
    if validation.num_classes > train.num_classes:
        raise DataError(
            f"dataset_val_path: {validation.path} has {validation.num_classes} classes, "
            f"dataset_path only {train.num_classes} ({train.path})"
        )
    if train.class_names and validation.class_names and train.class_names != validation.class_names:
        raise DataError(
            f"dataset_val_path: the class names of {validation.path} differ from those of {train.path}"
        )
    preprocessing = Preprocessing(request.image_size, IMAGENET_MEAN, IMAGENET_STD, crop_ratio=224 / 256)
    return Source(train, validation, preprocessing)


def digits(request: Request) -> Source:
    """1797 handwritten digits of 43 people (UCI optdigits, 8 x 8 pixels, from scikit-learn), enlarged.

    Written to the cache folder on first use; later uses check it and write it again where it is damaged.
    """
    folder, size = cache_folder(), request.image_size
    paths = {split: folder / f"digits-{size}px-{split}.beton" for split in ("train", "validation")}
    if any(_digits_problem(path) is not None for path in paths.values()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"digits-{size}px.lock"):
                _write_digits(paths, size)
        except OSError as error:
            raise DataError(
                f"dataset: the digits cannot be written to {folder} ({error}); "
                "set RECURRENT_VISION_CACHE to a folder that can be written"
            ) from error
    manifest = read_manifest(paths["train"])
    assert manifest is not None
    mean, std = float(manifest["mean"]), float(manifest["std"])
    train, validation = (inspect_beton(paths[split], "dataset") for split in ("train", "validation"))
    return Source(train, validation, Preprocessing(size, (mean, mean, mean), (std, std, std)))


def _digits_problem(path: Path) -> str | None:
    """Why a cached file can't be used, "" if it simply isn't there, None if it is good."""
    manifest = read_manifest(path)
    if not path.exists() and not manifest_path(path).exists():
        return ""
    if not path.exists() or manifest is None:
        return "is incomplete"
    if manifest.get("digits_version") != DIGITS_VERSION:
        return "is of another version"
    if path.stat().st_size != manifest["bytes"]:
        return f"has {path.stat().st_size} bytes instead of {manifest['bytes']}"
    if sha256(path) != manifest["sha256"]:
        return "has another checksum than when it was written"
    return None


def _write_digits(paths: dict[str, Path], size: int) -> None:
    for split, path in paths.items():
        problem = _digits_problem(path)  # another process may have written it meanwhile
        if problem is None:
            continue
        if problem:
            warnings.warn(f"cached sample {path} {problem}; writing it again", stacklevel=2)
        images, labels = digits_arrays(size)
        training_pixels = images[digits_split(labels)["train"]].astype(np.float64)
        notes: dict[str, Any] = {
            "digits_version": DIGITS_VERSION,
            "mean": training_pixels.mean(),
            "std": training_pixels.std(),
        }
        samples = [(images[i], int(labels[i])) for i in digits_split(labels)[split]]
        write_beton(path, samples, [str(digit) for digit in range(10)], page_size=2 << 20, notes=notes)


def digits_arrays(size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (1797, size, size, 3), enlarged bilinearly, 0..16 stretched to 0..255; labels (1797,)."""
    import torch
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images)[:, None] * (255 / 16)
    enlarged = torch.nn.functional.interpolate(grey, size=(size, size), mode="bilinear", align_corners=False)
    pixels = enlarged.round().to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    return np.ascontiguousarray(pixels.numpy()), bunch.target.astype(np.int64)


def digits_split(labels: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Positions of the training and the validation images: a fifth of each class is for validation.

    No image occurs twice among the 1797, so that positions suffice to keep the two apart.
    """
    held_out = []
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        held_out.append(members[permutation(digit, 0, len(members))[: round(len(members) / 5)]])
    validation = np.sort(np.concatenate(held_out))
    return {"train": np.setdiff1d(np.arange(len(labels)), validation), "validation": validation}
