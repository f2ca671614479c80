"""From a data set's keyword to its facts (check_data) and its loaders (open_data)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data.ffcv_setup import require_ffcv
from data.info import Data, DataError, DataInfo
from data.order import training_order, validation_order
from data.sources import Request, Source, digits, given_files


@dataclass(frozen=True)
class DatasetSpec:
    """A data set that a configuration can name."""

    summary: str
    """One line for help texts."""

    prepare: Callable[[Request], Source]
    """Finds or writes the .beton files."""

    image_size: int
    """Side of the square images unless the user says otherwise, in pixels."""

    max_image_size: int = 1024
    keys: frozenset[str] = frozenset()
    """Which of dataset_path and dataset_val_path it reads; the others are refused."""

    augment: bool = True
    """Random resized crop and horizontal flip in training."""


_PATHS = frozenset({"dataset_path", "dataset_val_path"})

DATASETS: dict[str, DatasetSpec] = {
    "digits": DatasetSpec("1797 handwritten digits, included", digits, 32, max_image_size=64, augment=False),
    "ffcv": DatasetSpec("your own .beton files", given_files, 224, keys=_PATHS),
}

MIN_IMAGE_SIZE = 8


def check_data(
    dataset: str,
    *,
    dataset_path: str | Path | None = None,
    dataset_val_path: str | Path | None = None,
    image_size: int | None = None,
) -> DataInfo:
    """Check a data set as far as that is possible without decoding an image; DataError if something is wrong.

    Writes the embedded sample on first use. `image_size` is in pixels, None means the data set's usual size.
    """
    if dataset not in DATASETS:
        raise DataError(f"dataset: unknown data set {dataset!r}; one of: {', '.join(sorted(DATASETS))}")
    spec = DATASETS[dataset]
    paths = {"dataset_path": dataset_path, "dataset_val_path": dataset_val_path}
    for key, path in paths.items():
        if path is not None and key not in spec.keys:
            raise DataError(f"{key}: {path} would not be used by dataset {dataset}; leave {key} out")
        if path is not None and not str(path):
            raise DataError(f"{key}: is empty; give a .beton file")
    size = spec.image_size if image_size is None else image_size
    if (
        isinstance(size, bool)
        or not isinstance(size, int)
        or not MIN_IMAGE_SIZE <= size <= spec.max_image_size
    ):
        allowed = f"an integer from {MIN_IMAGE_SIZE} to {spec.max_image_size} for dataset {dataset}"
        raise DataError(f"image_size: must be {allowed}, in pixels, got {size!r}")
    require_ffcv()
    given = {key: str(path) for key, path in paths.items() if path is not None}
    source = spec.prepare(Request(size, **given))
    names = source.train.class_names or tuple(str(i) for i in range(source.train.num_classes))
    return DataInfo(
        dataset=dataset,
        class_names=names,
        num_train=source.train.num_samples,
        num_validation=source.validation.num_samples,
        train_path=source.train.path,
        validation_path=source.validation.path,
        preprocessing=source.preprocessing,
    )


def open_data(
    dataset: str,
    *,
    dataset_path: str | Path | None = None,
    dataset_val_path: str | Path | None = None,
    batch_size: int,
    image_size: int | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    loader_threads: int = 1,
    pin_memory: bool = False,
) -> Data:
    """Open both splits for one of `world_size` workers. Opening again in the same process is nearly free.

    Args:
        batch_size: Images per batch over all workers; each gets batch_size / world_size of them.
        seed: Decides the order and the augmentation of every epoch.
        loader_threads: Threads that decode a batch; they don't change a single pixel.
        pin_memory: Page-locked batches; for training on a GPU with asynchronous copies.
    """
    for key, value in (
        ("batch_size", batch_size),
        ("world_size", world_size),
        ("loader_threads", loader_threads),
    ):
        if value < 1:
            raise DataError(f"{key}: must be 1 or more, got {value}")
    if not 0 <= rank < world_size:
        raise DataError(f"rank: must be 0 to {world_size - 1} with {world_size} workers, got {rank}")
    if batch_size % world_size:
        raise DataError(f"batch_size: {batch_size} images cannot be shared equally by {world_size} workers")
    info = check_data(
        dataset, dataset_path=dataset_path, dataset_val_path=dataset_val_path, image_size=image_size
    )
    if batch_size > info.num_train:
        raise DataError(
            f"batch_size: {batch_size} is more than the {info.num_train} training images of {info.train_path}"
        )
    from data.ffcv_loader import FfcvBatches
    from data.operations import Pipeline

    pipeline = partial(
        Pipeline,
        batch_size=batch_size // world_size,
        preprocessing=info.preprocessing,
        threads=loader_threads,
        pin_memory=pin_memory,
    )
    ranks = {"rank": rank, "world_size": world_size}
    train = FfcvBatches(
        pipeline(info.train_path, augment=DATASETS[dataset].augment),
        partial(training_order, seed=seed, count=info.num_train, batch_size=batch_size, **ranks),
        seed,
    )
    validation = FfcvBatches(
        pipeline(info.validation_path, augment=False),
        partial(validation_order, count=info.num_validation, **ranks),
        seed,
    )
    return Data(info, train, validation)
