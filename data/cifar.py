"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the files of their Python version.

The files are pickles. Unpickling may run any code, so that only the handful of functions that arrays need are
let through.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.folders import demand_folder
from data.images import ArrayImages
from data.info import DataError

SIDE = 32


@dataclass(frozen=True)
class _Layout:
    folder: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    names_file: str
    names_key: str
    labels_key: str


LAYOUTS = {
    "cifar10": _Layout(
        "cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",),
        "batches.meta", "label_names", "labels",
    ),
    "cifar100": _Layout(
        "cifar-100-python", ("train",), ("test",), "meta", "fine_label_names", "fine_labels"
    ),
}  # fmt: skip


class _ArraysOnly(pickle.Unpickler):
    """Lets only NumPy arrays and plain Python values through."""

    _ALLOWED = frozenset(
        (module, name)
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("_reconstruct", "scalar")
    ) | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

    def find_class(self, module: str, name: str) -> Any:
        """Refuse everything but arrays."""
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def cifar(dataset: str, path: Path) -> dict[str, ArrayImages]:
    """Both splits of `cifar10` or `cifar100`; `path` is the folder with the batches, or the one above it."""
    layout = LAYOUTS[dataset]
    demand_folder(path, "dataset_path")
    # os.path's questions are answered with no where a folder may not be entered; pathlib's raise.
    folder = path / layout.folder if os.path.isdir(path / layout.folder) else path
    for name in (layout.names_file, *layout.train, *layout.validation):
        if not os.path.isfile(folder / name):
            raise DataError(
                f"dataset_path: no file at {folder / name}; give the folder {layout.folder} of dataset "
                f"{dataset}, unpacked from its Python version"
            )
    content = _unpickle(folder / layout.names_file)
    names = content.get(layout.names_key)
    if not isinstance(names, list) or not names:
        raise DataError(f"dataset_path: {folder / layout.names_file} has no list {layout.names_key}")
    class_names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    splits = {"train": layout.train, "validation": layout.validation}
    return {
        split: ArrayImages(
            str(folder),
            class_names,
            _fingerprint([folder / name for name in files]),
            partial(_read, [folder / name for name in files], layout.labels_key, len(class_names)),
        )
        for split, files in splits.items()
    }


def _read(
    paths: list[Path], labels_key: str, num_classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    pixels, labels = [], []
    for path in paths:
        content = _unpickle(path)
        rows, row_labels = content.get("data"), content.get(labels_key)
        if (
            not isinstance(rows, np.ndarray)
            or not isinstance(row_labels, list)
            or rows.dtype != np.uint8
            or rows.shape != (len(row_labels), 3 * SIDE * SIDE)
        ):
            raise DataError(f"dataset_path: {path} does not hold rows of 3072 bytes and as many {labels_key}")
        for index, label in enumerate(row_labels):
            if not isinstance(label, int) or not 0 <= label < num_classes:
                raise DataError(
                    f"dataset_path: {path} has label {label!r} at image {index}; "
                    f"labels are integers from 0 to {num_classes - 1}"
                )
        pixels.append(rows.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
        labels.append(np.array(row_labels, np.int64))
    return np.ascontiguousarray(np.concatenate(pixels)), np.concatenate(labels)


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="latin1").load()
    except OSError as error:
        raise DataError(f"dataset_path: {path} cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"dataset_path: {path} is not a CIFAR file, or is damaged ({error})") from None
    if not isinstance(content, dict):
        raise DataError(f"dataset_path: {path} is not a CIFAR file")
    return content


def _fingerprint(paths: list[Path]) -> str:
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
