"""Image folders in the layouts that ImageNet comes in. Nothing is decoded here."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data.images import FileImages
from data.info import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp"})
"""Files with other endings are passed over."""

FEW = 50_000
"""Images below which a change inside a file is noticed; of more, only what is added, renamed or removed."""

_WORDNET_ID = re.compile(r"n\d{8}")
_KAGGLE_IMAGES = Path("ILSVRC") / "Data" / "CLS-LOC"


def class_folders(path: Path, key: str, *, wordnet: bool = False) -> FileImages:
    """A folder per class, classes and files in alphabetical order; `key` is named in errors.

    Args:
        path: The folder that holds the class folders.
        wordnet: Whether class folders must be called by WordNet ids, as ImageNet's are.
    """
    classes = sorted(item.name for item in _content(path, key) if item.is_dir() and item.name[0] != ".")
    if not classes:
        raise DataError(f"{key}: {path} has no class folders")
    strange = [name for name in classes if wordnet and not _WORDNET_ID.fullmatch(name)]
    if strange:
        raise DataError(
            f"{key}: {path / strange[0]} is not called by a WordNet id such as n01440764; "
            "dataset imagenet_small takes any names"
        )
    files: list[str] = []
    labels: list[int] = []
    visited = [path]
    for label, name in enumerate(classes):
        found = []
        seen: set[str] = set()

        def refuse(error: OSError) -> None:
            raise DataError(f"{key}: {error.filename} cannot be read ({error.strerror})")

        for folder, folders, names in os.walk(path / name, onerror=refuse, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # links that lead back
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(inner for inner in folders if inner[0] != ".")  # .ipynb_checkpoints
            visited.append(Path(folder))
            inside = Path(folder).relative_to(path)
            found += [str(inside / file) for file in names if _is_image(file)]
        if not found:
            raise DataError(f"{key}: class folder {path / name} has no images")
        files += sorted(found)
        labels += [label] * len(found)
    return FileImages(
        str(path), tuple(classes), tuple(files), tuple(labels), _fingerprint(visited, path, files)
    )


def train_and_val(root: Path) -> dict[str, Path]:
    """The folders train/ and val/ of a folder, by key."""
    there = {item.name for item in _content(root, "dataset_path") if item.is_dir()}
    folders = {"dataset_path": root / "train", "dataset_val_path": root / "val"}
    for folder in folders.values():
        if folder.name not in there:
            raise DataError(
                f"dataset_path: {root} has no folder {folder.name}; give a folder with train and val, "
                "or dataset_path and dataset_val_path"
            )
    return folders


def kaggle_train(root: Path) -> FileImages:
    """Training images of Kaggle's layout: ROOT/ILSVRC/Data/CLS-LOC/train, ROOT/imagenet_class_index.json."""
    demand_folder(root, "dataset_path")
    images = class_folders(root / _KAGGLE_IMAGES / "train", "dataset_path", wordnet=True)
    known = _kaggle_classes(root, "dataset_path")
    if images.class_names != tuple(sorted(known)):
        differing = sorted(set(images.class_names) ^ set(known))
        raise DataError(
            f"dataset_path: {root / 'imagenet_class_index.json'} and the folders of {images.origin} "
            f"differ in class {differing[0]}"
        )
    return _ordered(images, known)


def kaggle_validation(root: Path, key: str) -> FileImages:
    """Validation images of Kaggle's layout: one folder, with classes in ROOT/ILSVRC2012_val_labels.json."""
    demand_folder(root, key)
    known = _kaggle_classes(root, key)
    labels_path, folder = root / "ILSVRC2012_val_labels.json", root / _KAGGLE_IMAGES / "val"
    of_file = _read_json(labels_path, key)
    files = sorted(item.name for item in _content(folder, key) if item.is_file() and _is_image(item.name))
    if not files:
        raise DataError(f"{key}: {folder} has no images")
    numbers = {name: number for number, name in enumerate(known)}
    for name in files:
        if str(of_file.get(name)) not in numbers:
            got = f"class {of_file[name]!r}, which is none" if name in of_file else "no class"
            raise DataError(f"{key}: {labels_path} gives {name} {got} of imagenet_class_index.json")
    labels = tuple(numbers[str(of_file[name])] for name in files)
    # Labels lie in other files here, which can change without the folder.
    marks = [labels_path.read_bytes(), (root / "imagenet_class_index.json").read_bytes()]
    relative = tuple(str(_KAGGLE_IMAGES / "val" / name) for name in files)
    fingerprint = _fingerprint([folder], root, relative, marks)
    return FileImages(str(root), tuple(known), relative, labels, fingerprint)


def demand_folder(path: Path, key: str) -> None:
    """Raise DataError unless there is a folder."""
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long, a folder above that may not be entered
        raise DataError(f"{key}: {path} cannot be read ({error.strerror})") from None
    if not there:
        raise DataError(f"{key}: no folder at {path}")
    if not path.is_dir():
        raise DataError(f"{key}: {path} is a file; give a folder or a .beton file")


def _content(path: Path, key: str) -> list[os.DirEntry[str]]:
    demand_folder(path, key)
    try:
        return list(os.scandir(path))
    except OSError as error:
        raise DataError(f"{key}: {path} cannot be read ({error.strerror})") from None


def _kaggle_classes(root: Path, key: str) -> list[str]:
    """WordNet ids in the order of imagenet_class_index.json, {"0": ["n01440764", "tench"], ...}."""
    path = root / "imagenet_class_index.json"
    index = _read_json(path, key)
    try:
        classes = [str(index[str(number)][0]) for number in range(len(index))]
    except (KeyError, IndexError, TypeError):
        raise DataError(f'{key}: {path} must look like {{"0": ["n01440764", "tench"], ...}}') from None
    if len(set(classes)) != len(classes) or not classes:
        raise DataError(f"{key}: {path} must name each class once")
    return classes


def _ordered(images: FileImages, classes: list[str]) -> FileImages:
    numbers = {name: number for number, name in enumerate(classes)}
    labels = tuple(numbers[images.class_names[label]] for label in images.file_labels)
    return FileImages(images.origin, tuple(classes), images.files, labels, images.fingerprint)


def _read_json(path: Path, key: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{key}: no file at {path}, which dataset imagenet_kaggle needs") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{key}: {path} cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"{key}: {path} must hold a JSON object")
    return content


def _is_image(name: str) -> bool:
    return name[0] != "." and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _fingerprint(
    folders: Iterable[Path], root: Path, files: Sequence[str], marks: Iterable[bytes] = ()
) -> str:
    """Of folders: their paths, and when a file was last added, renamed or removed in them.

    Of a few files in root also sizes and times, since writing to a file doesn't change its folder.
    """
    digest = hashlib.sha256()
    for folder in folders:
        digest.update(os.fsencode(f"{folder}\0{folder.stat().st_mtime_ns}\0"))
    for mark in marks:
        digest.update(mark)
    for file in files if len(files) < FEW else ():
        try:
            stat = (root / file).stat()
        except OSError:  # it is named when it is read
            continue
        digest.update(f"{stat.st_size} {stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]
