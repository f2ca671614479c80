"""Claim: our training pipeline is as fast as ffcv's own with the same operations, and sooner at its first
batch.

Makes 2048 JPEGs of ImageNet's sizes (about 500 x 375 pixels, 74 kB), in folders and as a .beton file, and
runs each contestant in fresh processes, in turns, so that a busy machine is busy for all; medians are
reported.

    stock   ffcv's own operations, as its documentation uses them
    ours    data.open_data
    vision  torchvision's ImageFolder, RandomResizedCrop, flip and Normalize in torch's DataLoader
    torch   data.open_data with loader torch, on the same folders

First batches: seconds from `import` (torch excluded) to the first training and validation batch; `ours` also
without what numba keeps on disk, as on a machine's very first run. Memory: what the process of `ours` has of
its own after each of its epochs.

    python -m benchmarks.loader [--threads N] [--rounds N]      about 5 minutes

Measured on 2 cores with one thread, two rounds: ours 898 img/s, stock 914 (ours 0.98 times as fast),
vision 485, torch 576. First batches after 1.6 s (2.3 s without numba's cache), stock 7.5 s. Memory 372 MB
after each of six epochs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

BATCH, SIZE, IMAGES, CLASSES = 64, 224, 2048, 8
EPOCHS, SLOW_BATCHES = 3, 8


def stock(folder: str, threads: int) -> dict[str, Any]:
    """ffcv as its documentation uses it."""
    import torch

    path = f"{folder}/train.beton"
    start = time.perf_counter()
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage

    mean, std = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255

    def loader(decoders: list[Any], order: Any) -> Any:
        shown = [NormalizeImage(mean, std, np.float32), ToTensor(), ToTorchImage()]
        fields = {"image": [*decoders, *shown], "label": [IntDecoder(), ToTensor(), Squeeze()]}
        return Loader(path, batch_size=BATCH, num_workers=threads, order=order, seed=0, pipelines=fields)

    crop = RandomResizedCropRGBImageDecoder((SIZE, SIZE))
    train = loader([crop, RandomHorizontalFlip()], OrderOption.RANDOM)
    validation = loader([CenterCropRGBImageDecoder((SIZE, SIZE), 224 / 256)], OrderOption.SEQUENTIAL)
    next(iter(train))
    next(iter(validation))
    first = time.perf_counter() - start
    speeds = []
    for _ in range(EPOCHS):
        begin = time.perf_counter()
        images = sum(len(labels) for _, labels in train)
        speeds.append(images / (time.perf_counter() - begin))
    assert torch.get_num_threads() == threads  # what ffcv leaves behind
    return {"first_s": first, "images_per_s": speeds}


def ours(folder: str, threads: int) -> dict[str, Any]:
    """The same through this package."""
    import torch  # noqa: F401

    path = f"{folder}/train.beton"
    start = time.perf_counter()
    from data import open_data

    opened = open_data(
        "ffcv",
        dataset_path=path,
        dataset_val_path=path,
        batch_size=BATCH,
        image_size=SIZE,
        loader_threads=threads,
    )
    for loader in (opened.train, opened.validation):
        iterator = loader.epoch(0)
        next(iterator)
        del iterator
    first = time.perf_counter() - start
    speeds, memory = [], []
    for epoch in range(2 * EPOCHS):
        begin = time.perf_counter()
        images = sum(len(labels) for _, labels in opened.train.epoch(epoch))
        speeds.append(images / (time.perf_counter() - begin))
        memory.append(own_memory())
    return {"first_s": first, "images_per_s": speeds[:EPOCHS], "memory_mb": memory}


def own_memory() -> float:
    """Anonymous memory of this process in MB: without the pages of the mapped file."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1000


def vision(folder: str, threads: int) -> dict[str, Any]:
    """torchvision and torch's DataLoader."""
    import torch
    from torchvision import datasets, transforms

    torch.set_num_threads(1)
    steps = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    steps.append(transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    images = datasets.ImageFolder(f"{folder}/train", transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True, num_workers=threads)
    return {"images_per_s": [some_batches(iter(loader))]}


def torch_loader(folder: str, threads: int) -> dict[str, Any]:
    """This package without ffcv."""
    import torch

    from data import LoadingOptions, open_data

    torch.set_num_threads(1)
    opened = open_data(
        "imagenet_small",
        dataset_path=f"{folder}/train",
        dataset_val_path=f"{folder}/train",
        batch_size=BATCH,
        image_size=SIZE,
        loader_threads=threads,
        options=LoadingOptions(loader="torch"),
    )
    return {"images_per_s": [some_batches(opened.train.epoch(0))]}


def some_batches(batches: Iterator[Any]) -> float:
    """Images per second over some batches after the first."""
    next(batches)
    begin = time.perf_counter()
    images = sum(len(labels) for _, labels in islice(batches, SLOW_BATCHES))
    return images / (time.perf_counter() - begin)


SIDES = {"stock": stock, "ours": ours, "vision": vision, "torch": torch_loader}


def in_fresh_process(side: str, folder: str, threads: int, **environment: str) -> dict[str, Any]:
    """Run one side in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.loader", "--side", side, "--folder", folder]
    ended = subprocess.run(
        [*command, "--threads", str(threads)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    return json.loads(ended.stdout)


def make_images(folder: Path) -> None:
    """JPEGs of about ImageNet's sizes and bytes: coarse shapes with fine grain, in class folders."""
    import cv2

    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        width, height = (
            (500, int(rng.integers(333, 401))) if number % 4 else (int(rng.integers(333, 401)), 500)
        )
        coarse = cv2.resize(
            rng.integers(0, 256, (12, 16, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
        )
        grain = cv2.GaussianBlur(rng.normal(0, 40, (height, width, 3)).astype(np.float32), (0, 0), 1.0)
        path = folder / "train" / f"class{number % CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(path), np.clip(coarse + grain, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92]
        )


def main() -> None:
    """Parse the command line; print a line per side and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="threads or processes (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side (default: 3)")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments.folder, arguments.threads)))
        return

    from data.beton_writer import write_images
    from data.folders import class_folders

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder)
        path = write_images(folder / "train.beton", class_folders(folder / "train", "--folder"))
        print(f"{IMAGES} images of {path.stat().st_size / IMAGES / 1000:.0f} kB", flush=True)
        very_first = in_fresh_process("ours", name, arguments.threads, NUMBA_CACHE_DIR=f"{name}/numba")
        in_fresh_process("ours", name, arguments.threads)  # from here on numba's cache is filled
        results: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(arguments.rounds):
            for side, rounds in results.items():
                rounds.append(in_fresh_process(side, name, arguments.threads))
                print(f"{side:7}{median(rounds[-1]['images_per_s']):8,.0f} img/s", flush=True)
    speed = {side: median(v for r in rounds for v in r["images_per_s"]) for side, rounds in results.items()}
    first = {side: median(r["first_s"] for r in results[side]) for side in ("stock", "ours")}
    for side, value in speed.items():
        print(
            f"{side:7}{value:8,.0f} img/s"
            + (f", first batches after {first[side]:.1f} s" if side in first else "")
        )
    print(f"ours without numba's cache: first batches after {very_first['first_s']:.1f} s")
    for one, other in (("ours", "stock"), ("ours", "vision"), ("torch", "vision")):
        print(f"{one} / {other} {speed[one] / speed[other]:.2f}")
    memory = results["ours"][-1]["memory_mb"]
    print("memory of ours after each epoch, MB: " + ", ".join(f"{value:.0f}" for value in memory))


if __name__ == "__main__":
    main()
