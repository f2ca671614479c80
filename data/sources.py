"""Where images come from: each function finds what a keyword's paths mean, and how it is shown."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.beton_index import BetonFile, BetonImages, inspect_beton
from data.cifar import LAYOUTS, cifar
from data.converted import USUAL_RESOLUTION, cached_beton, cached_name, folder_settings
from data.encode import WriteSettings
from data.folders import class_folders, kaggle_train, kaggle_validation, train_and_val
from data.images import ArrayImages, FileImages, ImageList, check_classes
from data.info import RGB, DataError, Preprocessing
from data.manifest import read_manifest
from data.options import LoaderName
from data.order import permutation

IMAGENET_MEAN: RGB = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD: RGB = (0.229 * 255, 0.224 * 255, 0.225 * 255)
CIFAR_STATISTICS: dict[str, tuple[RGB, RGB]] = {
    "cifar10": ((125.307, 122.950, 113.865), (62.993, 62.089, 66.705)),
    "cifar100": ((129.304, 124.070, 112.434), (68.170, 65.392, 70.418)),
}
"""Mean and standard deviation of the training pixels of both, in 0..255 units."""

DIGITS_VERSION = 1
"""Raise when the sample's pixels or split change: cached files of another version are written again."""

PATHS = ("dataset_path", "dataset_val_path")


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    dataset: str
    image_size: int
    loader: LoaderName = "ffcv"
    dataset_path: str | None = None
    dataset_val_path: str | None = None

    def path(self, key: str) -> Path | None:
        """One of the two paths, absolute."""
        given = getattr(self, key)
        # Path.expanduser raises where there is no such user; this is then a folder that is missing.
        return None if given is None else Path(os.path.expanduser(given)).absolute()


Split = BetonFile | FileImages | ArrayImages
"""Images of a split as they are found."""


@dataclass(frozen=True)
class Source:
    """Two splits and how to show them."""

    train: Split
    validation: Split
    preprocessing: Preprocessing
    settings: WriteSettings = WriteSettings()
    """How images are stored when they have to be converted."""

    def checked(self) -> Source:
        """The same, if both splits have the same classes."""
        train, validation = class_names(self.train), class_names(self.validation)
        if train and validation and train != validation:
            check_classes(train, validation, origin(self.validation))
            raise DataError(
                f"dataset_val_path: the class names of {origin(self.validation)} are in another order than "
                f"those of {origin(self.train)}"
            )
        fewer, more = num_classes(self.train), num_classes(self.validation)
        if more > fewer:
            raise DataError(
                f"dataset_val_path: {origin(self.validation)} has {more} classes, "
                f"dataset_path only {fewer} ({origin(self.train)})"
            )
        return self


def class_names(split: Split) -> tuple[str, ...] | None:
    """Names of the classes, where they are known."""
    return split.class_names


def num_classes(split: Split) -> int:
    """Number of classes."""
    return split.num_classes if isinstance(split, BetonFile) else len(split.class_names)


def num_samples(split: Split) -> int:
    """Number of images."""
    return split.num_samples if isinstance(split, BetonFile) else len(split.labels)


def origin(split: Split) -> str:
    """Path or name."""
    return split.path if isinstance(split, BetonFile) else split.origin


def as_beton(request: Request, source: Source) -> Source:
    """The source with both splits as .beton files, converted into the cache folder where they aren't."""

    longest = source.settings.max_resolution
    size = "" if longest in (None, USUAL_RESOLUTION) else f"-{longest}px"

    def converted(split: Split, part: str, key: str) -> BetonFile:
        if isinstance(split, BetonFile):
            return split
        name = f"{cached_name(request.dataset, origin(split))}{size}-{part}"
        return cached_beton(name, split, key, source.settings)

    return replace(
        source,
        train=converted(source.train, "train", "dataset_path"),
        validation=converted(source.validation, "validation", "dataset_val_path"),
    )


def as_images(split: Split) -> ImageList:
    """A split as a list of images, for the torch loader."""
    return BetonImages(split) if isinstance(split, BetonFile) else split


def _beton(request: Request, key: str) -> BetonFile | None:
    path = request.path(key)
    return inspect_beton(path, key) if path is not None and path.suffix == ".beton" else None


def _imagenet_preprocessing(request: Request) -> Preprocessing:
    """As ffcv-imagenet shows its images."""
    return Preprocessing(request.image_size, IMAGENET_MEAN, IMAGENET_STD, crop_ratio=224 / 256)


def _demand_path(request: Request, key: str, what: str) -> Path:
    path = request.path(key)
    if path is None:
        raise DataError(f"{key}: not given; dataset {request.dataset} needs {what}")
    return path


def given_files(request: Request) -> Source:
    """Two .beton files that the user names."""
    for key in PATHS:
        _demand_path(request, key, "dataset_path and dataset_val_path, .beton files")
    train, validation = (inspect_beton(str(getattr(request, key)), key) for key in PATHS)
    return Source(train, validation, _imagenet_preprocessing(request))


def imagenet(request: Request, *, wordnet: bool = True) -> Source:
    """Class folders, in dataset_path and dataset_val_path or in train/ and val/ of dataset_path."""
    root = _demand_path(request, "dataset_path", "a folder with train and val, or a .beton file")
    paths = {key: request.path(key) for key in PATHS}
    if paths["dataset_val_path"] is None:
        if root.suffix == ".beton":
            _demand_path(request, "dataset_val_path", "it where dataset_path is a .beton file")
        paths |= train_and_val(root)
    train, validation = (
        _beton(request, key) or class_folders(Path(str(paths[key])), key, wordnet=wordnet) for key in PATHS
    )
    return Source(train, validation, _imagenet_preprocessing(request), folder_settings(request.image_size))


def imagenet_kaggle(request: Request) -> Source:
    """Kaggle's layout in dataset_path; a second one in dataset_val_path may hold the validation images."""
    root = _demand_path(request, "dataset_path", "the folder with ILSVRC and imagenet_class_index.json")
    key = "dataset_path" if request.dataset_val_path is None else "dataset_val_path"
    if root.suffix == ".beton":
        _demand_path(request, "dataset_val_path", "it where dataset_path is a .beton file")
    train = _beton(request, "dataset_path") or kaggle_train(root)
    validation = _beton(request, "dataset_val_path") or kaggle_validation(request.path(key) or root, key)
    return Source(train, validation, _imagenet_preprocessing(request), folder_settings(request.image_size))


def cifar_batches(request: Request) -> Source:
    """The folder of CIFAR's Python version, or two .beton files."""
    mean, std = CIFAR_STATISTICS[request.dataset]
    preprocessing, raw = Preprocessing(request.image_size, mean, std), WriteSettings("raw")
    folder = LAYOUTS[request.dataset].folder
    root = _demand_path(request, "dataset_path", f"the folder {folder}, or a .beton file")
    if root.suffix == ".beton":
        _demand_path(request, "dataset_val_path", "it where dataset_path is a .beton file")
        train, validation = (inspect_beton(str(getattr(request, key)), key) for key in PATHS)
        return Source(train, validation, preprocessing, raw)
    if request.path("dataset_val_path") not in (None, root):
        raise DataError(
            f"dataset_val_path: {request.dataset_val_path} would not be used; "
            f"{root} holds the validation images too"
        )
    splits = cifar(request.dataset, root)
    return Source(splits["train"], splits["validation"], preprocessing, raw)


def digits(request: Request) -> Source:
    """1797 handwritten digits of 43 people (UCI optdigits, 8 x 8 pixels, from scikit-learn), enlarged.

    Written to the cache folder on first use; later uses check it and write it again where it is damaged.
    """
    size, raw = request.image_size, WriteSettings("raw")
    names = tuple(str(digit) for digit in range(10))
    splits = {
        split: ArrayImages(
            f"digits, {split}", names, f"digits {DIGITS_VERSION}", partial(_digits_part, size, split)
        )
        for split in ("train", "validation")
    }

    def statistics() -> dict[str, float]:
        pixels = splits["train"].pixels.astype(np.float64)
        return {"mean": float(pixels.mean()), "std": float(pixels.std())}

    if request.loader == "torch":
        known = statistics()
        train, validation = splits["train"], splits["validation"]
        return Source(train, validation, _digits_preprocessing(size, known), raw)
    files = {
        split: cached_beton(f"digits-{size}px-{split}", images, "dataset", raw, statistics)
        for split, images in splits.items()
    }
    manifest = read_manifest(Path(files["train"].path))
    assert manifest is not None
    return Source(files["train"], files["validation"], _digits_preprocessing(size, manifest), raw)


def _digits_preprocessing(size: int, known: dict[str, float]) -> Preprocessing:
    mean, std = known["mean"], known["std"]
    return Preprocessing(size, (mean, mean, mean), (std, std, std))


def _digits_part(size: int, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = digits_arrays(size)
    part = digits_split(labels)[split]
    return images[part], labels[part]


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
