"""Write training and validation .beton files of a data set.

examples:
  python -m data.beton imagenet --path /data/imagenet --out /data/beton --max-resolution 500 --processes 8
  python -m data.beton imagenet_kaggle --path /data/kaggle --out /data/beton
  python -m data.beton imagenet_small --path /data/pets --out pets --write-mode raw --max-resolution 256
  python -m data.beton imagenet --path /data/imagenet --out /data/tenth --subset 128000 --seed 1
  python -m data.beton cifar10 --path /data/cifar-10-batches-py --out /data/cifar

OUT then holds train.beton and validation.beton, and beside each a .json with classes, counts, settings and
checksum. Train with dataset=ffcv or the data set's own keyword, and these two files as dataset_path and
dataset_val_path. Each file appears whole or not at all; running the same command again writes only what is
missing. The shape of images is kept. Exit codes: 0 done, 2 the input was wrong or a file can't be written.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data.beton_index import BetonFile
from data.beton_writer import write_images
from data.encode import WriteSettings
from data.images import ImageList, Subset
from data.info import DataError
from data.manifest import read_manifest, sha256
from data.order import hash_indices
from data.registry import DATASETS
from data.sources import Request, Split

SOURCES = tuple(sorted(set(DATASETS) - {"ffcv", "digits"}))


def subset(images: ImageList, count: int, seed: int) -> Subset:
    """`count` images, every class with its share (largest remainders), chosen by a hash of seed and index."""
    labels = images.labels
    per_class = np.bincount(labels, minlength=len(images.class_names))
    if not len(per_class) <= count <= len(labels):
        raise DataError(
            f"--subset: must be from {len(per_class)}, the number of classes, to the {len(labels)} images "
            f"of {images.origin}, got {count}"
        )
    exact = per_class * (count / len(labels))
    wanted = np.minimum(per_class, np.maximum(1, np.floor(exact).astype(np.int64)))
    while wanted.sum() != count:  # classes with less than one image were raised to one
        step = 1 if wanted.sum() < count else -1
        room = (wanted < per_class) if step == 1 else (wanted > 1)
        gap = np.where(room, step * (exact - wanted), -np.inf)
        wanted[int(gap.argmax())] += step
    order = np.argsort(hash_indices(seed, len(labels)), kind="stable")
    order = order[np.argsort(labels[order], kind="stable")]  # class after class
    starts = np.cumsum(per_class) - per_class
    chosen = np.concatenate([order[a:b] for a, b in zip(starts, starts + wanted, strict=True)])
    return Subset(images, tuple(np.sort(chosen).tolist()))


def convert(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for; DataError if something is wrong."""
    settings = WriteSettings(arguments.write_mode, arguments.max_resolution, arguments.jpeg_quality)
    for name, value in (("--processes", arguments.processes), ("--subset", arguments.subset)):
        if value is not None and value < 1:
            raise DataError(f"{name}: must be 1 or more, got {value}")
    if not 0 <= arguments.seed < 2**64:
        raise DataError(f"--seed: must be from 0 to {2**64 - 1}, got {arguments.seed}")
    for name, value in (
        ("--path", arguments.path),
        ("--val-path", arguments.val_path),
        ("--out", arguments.out),
    ):
        if value == "":
            raise DataError(f"{name}: is empty; give a path")
    spec = DATASETS[arguments.source]
    source = spec.prepare(
        Request(arguments.source, spec.image_size, "ffcv", arguments.path, arguments.val_path)
    ).checked()
    work: list[tuple[Path, ImageList, dict[str, object]]] = []
    splits: dict[str, Split] = {"train": source.train, "validation": source.validation}
    for name, images in splits.items():
        if isinstance(images, BetonFile):
            raise DataError(f"--path: {images.path} is a .beton file already")
        chosen: ImageList = images
        notes = {"dataset": arguments.source, "split": name}
        if name == "train" and arguments.subset is not None:
            chosen = subset(images, arguments.subset, arguments.seed)
            notes |= {"subset": arguments.subset, "subset_seed": arguments.seed}
        work.append((Path(arguments.out) / f"{name}.beton", chosen, notes))
    with _alone(Path(arguments.out)):
        for path, chosen, notes in work:
            _write(path, chosen, settings, notes, arguments)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Both files of a folder come from one command: a second one waits, then sees what is there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / "data.beton.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another conversion into {out}", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise DataError(f"--out: {out} cannot be written ({error.strerror or error})") from None
    try:
        yield
    finally:
        lock.release()


def _write(
    path: Path,
    images: ImageList,
    settings: WriteSettings,
    notes: dict[str, object],
    arguments: argparse.Namespace,
) -> None:
    expected = {
        "settings": asdict(settings),
        "fingerprint": images.fingerprint,
        "source": images.origin,
        "class_names": list(images.class_names),
        **notes,
    }
    known = read_manifest(path)
    if path.exists() and not arguments.force:
        same = known is not None and {key: known.get(key) for key in (*expected, "subset")} == {
            "subset": None,
            **expected,
        }
        if (
            known is not None
            and same
            and path.stat().st_size == known["bytes"]
            and sha256(path) == known["sha256"]
        ):
            print(f"{path} is there already: {known['num_samples']} images")
            return
        raise DataError(f"--out: {path} exists and was made otherwise, or is damaged; --force replaces it")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(path.name, total=len(images.labels))
        write_images(
            path,
            images,
            settings,
            processes=arguments.processes,
            corrupt=arguments.corrupt,
            notes=notes,
            progress=lambda done: bar.update(task, completed=done),
        )
    manifest = read_manifest(path)
    assert manifest is not None
    skipped = len(manifest["skipped"])
    print(
        f"{path}: {manifest['num_samples']} images in {len(manifest['class_names'])} classes, "
        f"{manifest['bytes'] / 1e6:,.1f} MB" + (f"; {skipped} skipped, see the .json" if skipped else "")
    )


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line; 0 done, 2 the input was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m data.beton", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", choices=SOURCES, help="keyword of the data set")
    add("--path", required=True, help="its folder")
    add("--val-path", help="folder of the validation images, where they are not in --path")
    add("--out", required=True, help="folder of the two files; made where it is missing")
    add(
        "--max-resolution",
        type=int,
        metavar="PIXELS",
        help="shrink images with a longer side (default: don't)",
    )
    add("--write-mode", default="jpg", choices=("jpg", "raw", "proportion"),
        help="jpg is small (default), raw fast but large, proportion half and half")  # fmt: skip
    add("--jpeg-quality", type=int, metavar="1..100",
        help="encode all anew (default: keep JPEG files as they are, 90 for others)")  # fmt: skip
    add("--subset", type=int, metavar="N", help="only N training images, every class with its share")
    add("--seed", type=int, default=0, help="which N images (default: 0)")
    add("--processes", type=int, default=os.cpu_count() or 1, metavar="N",
        help="processes that read and encode; they change no byte (default: one per core)")  # fmt: skip
    add("--corrupt", default="refuse", choices=("refuse", "skip"),
        help="images that can't be decoded: stop (default), or leave out, count and name them")  # fmt: skip
    add("--force", action="store_true", help="replace files that are there")
    try:
        convert(parser.parse_args(arguments))
    except DataError as error:
        # The commands know the paths as --path and --val-path, the settings of a run as dataset_path.
        message = str(error).replace("dataset_val_path:", "--val-path:").replace("dataset_path:", "--path:")
        print(f"data.beton: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
