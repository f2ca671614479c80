"""One cache folder for the session, and a small data set of JPEGs of many shapes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from data.beton import write_beton

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
