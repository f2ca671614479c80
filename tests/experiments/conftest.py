"""Small networks to analyse, and a Pascal VOC tree."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models import build_model
from tests.commands import SMALL
from trainable.config import TrainConfig
from trainable.loop import WEIGHTS_FILE, train
from trainable.session import LocalSession
from trainable.weights import export_weights


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network trained for two epochs on the digits, with its .json, as a run leaves them."""
    folder = tmp_path_factory.mktemp("trained") / "trial_0"
    train(TrainConfig(**{**SMALL, "epochs": 2, "time_steps": 3}), LocalSession(folder, threads=2))
    return folder / WEIGHTS_FILE


def random_weights(folder: Path, class_names: list[str], seed: int = 0, **settings: Any) -> Path:
    """Weights of an untrained network of two-state cells for 48 px images."""
    config = {
        **SMALL,
        "cell_type": "lstm",
        "skip_first": False,
        "filters": [3, 5],
        "normalization": "none",
        "seed": seed,
        **settings,
    }
    torch.manual_seed(seed)
    network = build_model(config, len(class_names))
    about = {
        "config": config,
        "preprocessing": {
            "image_size": 48,
            "mean": [120.0, 115.0, 100.0],
            "std": [58.0, 57.0, 57.0],
            "crop_ratio": 1.0,
        },
        "class_names": class_names,
        "metrics": {"val_acc": 0.1 + seed / 100},
    }
    path = folder / f"net{seed}.weights"
    export_weights(path, network.state_dict(), about)
    return path


@pytest.fixture(scope="session")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty photos of bottles, cats, cows and trains in VOC's layout; one more is marked difficult."""
    root = tmp_path_factory.mktemp("voc") / "VOC2012"
    for folder in ("Annotations", "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    kinds = {"bottle": 5, "cat": 8, "cow": 10, "train": 19}
    palette = [value for i in range(256) for value in (i, 255 - i, i // 2)]
    names = []
    for index in range(21):
        kind = list(kinds)[index % 4]
        height, width = random.integers(60, 90, size=2)
        top, left = random.integers(8, 20, size=2)
        bottom, right = top + 25 + index, left + 30
        classes = np.zeros((height, width), dtype=np.uint8)
        classes[top - 2 : bottom + 2, left - 2 : right + 2] = 255
        classes[top:bottom, left:right] = kinds[kind]
        classes[top : top + 9, left : left + 3 + index] = 0  # shapes differ from the box
        pixels = random.integers(0, 255, size=(height, width, 3)).astype(np.uint8)
        name = f"2008_{index:06d}"
        names.append(name)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(classes, mode="P")
        mask.putpalette(palette)
        mask.save(root / "SegmentationClass" / f"{name}.png")
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><size><width>{width}</width><height>{height}</height></size><object>"
            f"<name>{kind}</name><truncated>0</truncated><occluded>0</occluded>"
            f"<difficult>{int(index == 20)}</difficult><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
            f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object></annotation>"
        )
    (root / "ImageSets/Segmentation/trainval.txt").write_text("\n".join(names))
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(names[:12]))
    return root
