"""One cache folder for the session, and a small data set of JPEGs of many shapes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from data.beton_writer import write_beton

ROOT = Path(__file__).parents[2]
NUM_TRAIN, NUM_VALIDATION = 37, 11
CLASS_NAMES = ("dot", "line", "plane")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the digits are written, once for the session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECURRENT_VISION_CACHE", str(folder))
        yield folder


def smooth_image(seed: int) -> np.ndarray:
    """A colourful image of 40..79 x 40..79 pixels that differs everywhere, also from its mirror image."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(40, 80, size=2)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(rng.uniform(0.02, 0.2) * x + rng.uniform(0.02, 0.2) * y + i) for i in range(3)]
    return np.rint(127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """dataset_path and dataset_val_path of JPEGs in three classes."""
    folder = tmp_path_factory.mktemp("photos")
    for split, count in (("train", NUM_TRAIN), ("validation", NUM_VALIDATION)):
        samples = [(smooth_image(1000 * count + i), i % 3) for i in range(count)]
        write_beton(folder / f"{split}.beton", samples, CLASS_NAMES, write_mode="jpg")
    return {
        "dataset_path": str(folder / "train.beton"),
        "dataset_val_path": str(folder / "validation.beton"),
    }


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run code in a fresh interpreter; environment variables may be added."""

    def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", code],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


WORDNET_IDS = ("n01440764", "n02110185", "n02123045")


def save_jpeg(path: Path, seed: int) -> None:
    """A smooth image of many shapes as a JPEG file."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(smooth_image(seed)).save(path, quality=95)


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small data set in the layout of every keyword: 3 classes, 12 training and 7 validation images."""
    root = tmp_path_factory.mktemp("trees")
    counts = {"train": (5, 4, 3), "val": (2, 3, 2)}
    kaggle = root / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC"
    val_labels, seed = {}, 0
    for split, per_class in counts.items():
        for wnid, count in zip(WORDNET_IDS, per_class, strict=True):
            for number in range(count):
                seed += 1
                save_jpeg(root / "imagenet" / split / wnid / f"{wnid}_{number}.JPEG", seed)
                name = f"{wnid}_{number}.JPEG"
                if split == "val":
                    name = f"ILSVRC2012_val_{seed:08d}.JPEG"
                    val_labels[name] = wnid
                save_jpeg(kaggle / split / (wnid if split == "train" else "") / name, seed)
    index = {str(i): [wnid, f"name {i}"] for i, wnid in enumerate(WORDNET_IDS)}
    (root / "kaggle" / "imagenet_class_index.json").write_text(json.dumps(index))
    (root / "kaggle" / "ILSVRC2012_val_labels.json").write_text(json.dumps(val_labels))
    rng = np.random.default_rng(0)
    cifar = {
        "cifar10": ("cifar-10-batches-py", [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"],
                    "batches.meta", "label_names", "labels", 10),
        "cifar100": ("cifar-100-python", ["train", "test"], "meta", "fine_label_names", "fine_labels", 100),
    }  # fmt: skip
    for folder, files, meta, names_key, labels_key, classes in cifar.values():
        (root / folder).mkdir()
        (root / folder / meta).write_bytes(
            pickle.dumps({names_key: [f"class {i}" for i in range(classes)]}, 2)
        )
        for file in files:
            rows = rng.integers(0, 256, (4, 3072), np.uint8)
            content = {"data": rows, labels_key: rng.integers(0, classes, 4).tolist()}
            (root / folder / file).write_bytes(pickle.dumps(content, 2))
    return {
        "imagenet": root / "imagenet",
        "imagenet_small": root / "imagenet",
        "imagenet_kaggle": root / "kaggle",
        "cifar10": root / "cifar-10-batches-py",
        "cifar100": root,  # the folder above the one with the files will do too
    }
