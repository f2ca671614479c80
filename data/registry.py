"""From a data set's keyword to its facts (check_data) and its loaders (open_data)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.augment import Augmentation
from data.beton_index import BetonFile
from data.ffcv_setup import require_ffcv
from data.info import BatchLoader, Data, DataError, DataInfo
from data.options import LoadingOptions
from data.order import training_order, validation_order
from data.sources import (
    Request,
    Source,
    Split,
    as_beton,
    as_images,
    cifar_batches,
    digits,
    given_files,
    imagenet,
    imagenet_kaggle,
    num_samples,
    origin,
)

if TYPE_CHECKING:
    import torch

    from data.batch_format import BatchFormat
    from data.batches import Schedule


@dataclass(frozen=True)
class DatasetSpec:
    """A data set that a configuration can name."""

    summary: str
    """One line for help texts."""

    prepare: Callable[[Request], Source]
    """Finds the images."""

    image_size: int
    """Side of the square images unless the user says otherwise, in pixels."""

    max_image_size: int = 1024
    keys: frozenset[str] = frozenset()
    """Which of dataset_path and dataset_val_path it reads; the others are refused."""

    crop_area: float | None = 0.08
    """Smallest share of an image that a training crop covers; None: training images aren't varied at all."""


_PATHS = frozenset({"dataset_path", "dataset_val_path"})

DATASETS: dict[str, DatasetSpec] = {
    "cifar10": DatasetSpec("CIFAR-10, Python version", cifar_batches, 32, keys=_PATHS, crop_area=0.6),
    "cifar100": DatasetSpec("CIFAR-100, Python version", cifar_batches, 32, keys=_PATHS, crop_area=0.6),
    "digits": DatasetSpec("1797 handwritten digits, included", digits, 32, max_image_size=64, crop_area=None),
    "ffcv": DatasetSpec("your own .beton files", given_files, 224, keys=_PATHS),
    "imagenet": DatasetSpec("ImageNet, a folder per WordNet id", imagenet, 224, keys=_PATHS),
    "imagenet_kaggle": DatasetSpec("ImageNet as Kaggle has it", imagenet_kaggle, 224, keys=_PATHS),
    "imagenet_small": DatasetSpec(
        "train/ and val/ with a folder per class", partial(imagenet, wordnet=False), 224, keys=_PATHS
    ),
}

MIN_IMAGE_SIZE = 8


def check_data(
    dataset: str,
    *,
    dataset_path: str | Path | None = None,
    dataset_val_path: str | Path | None = None,
    image_size: int | None = None,
    options: LoadingOptions = LoadingOptions(),  # noqa: B008
) -> DataInfo:
    """Check a data set as far as that is possible without decoding an image; DataError if something is wrong.

    What isn't a .beton file yet is converted on first use, into the cache folder, unless the torch loader is
    asked for. `image_size` is in pixels, None means the data set's usual size.
    """
    return _find(dataset, dataset_path, dataset_val_path, image_size, options)[0]


def _find(
    dataset: str,
    dataset_path: str | Path | None,
    dataset_val_path: str | Path | None,
    image_size: int | None,
    options: LoadingOptions,
) -> tuple[DataInfo, Source]:
    if dataset not in DATASETS:
        raise DataError(f"dataset: unknown data set {dataset!r}; one of: {', '.join(sorted(DATASETS))}")
    spec = DATASETS[dataset]
    paths = {"dataset_path": dataset_path, "dataset_val_path": dataset_val_path}
    for key, path in paths.items():
        if path is not None and key not in spec.keys:
            raise DataError(f"{key}: {path} would not be used by dataset {dataset}; leave {key} out")
        if path is not None and not str(path):
            raise DataError(f"{key}: is empty; give a path")
    size = spec.image_size if image_size is None else image_size
    if (
        isinstance(size, bool)
        or not isinstance(size, int)
        or not MIN_IMAGE_SIZE <= size <= spec.max_image_size
    ):
        allowed = f"an integer from {MIN_IMAGE_SIZE} to {spec.max_image_size} for dataset {dataset}"
        raise DataError(f"image_size: must be {allowed}, in pixels, got {size!r}")
    if options.first_size is not None and not MIN_IMAGE_SIZE <= options.first_size <= size:
        allowed = f"from {MIN_IMAGE_SIZE} to the image size of {size} pixels"
        raise DataError(f"first_size: must be {allowed}, got {options.first_size}")
    _augmentation(dataset, options)
    if options.loader == "ffcv":
        require_ffcv()
    given = {key: str(path) for key, path in paths.items() if path is not None}
    request = Request(dataset, size, options.loader, **given)
    source = spec.prepare(request).checked()
    if options.loader == "ffcv":
        source = as_beton(request, source)
    train = as_images(source.train)
    info = DataInfo(
        dataset=dataset,
        class_names=train.class_names,
        num_train=num_samples(source.train),
        num_validation=num_samples(source.validation),
        train_path=origin(source.train),
        validation_path=origin(source.validation),
        preprocessing=source.preprocessing,
    )
    return info, source


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
    options: LoadingOptions = LoadingOptions(),  # noqa: B008
    device: torch.device | None = None,
) -> Data:
    """Open both splits for one of `world_size` workers. Opening again in the same process is nearly free.

    Args:
        batch_size: Images per batch over all workers; each gets batch_size / world_size of them.
        seed: Decides the order and the augmentation of every epoch.
        loader_threads: Threads that decode a batch; they don't change a single pixel.
        options: Augmentation, and the form in which batches arrive.
        device: Where batches are wanted; on a GPU they are copied there while it computes. None: main memory.
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
    info, source = _find(dataset, dataset_path, dataset_val_path, image_size, options)
    if batch_size > info.num_train:
        raise DataError(
            f"batch_size: {batch_size} is more than the {info.num_train} training images of {info.train_path}"
        )
    from data.batch_format import BatchFormat
    from data.batches import Schedule

    full_size, ranks = info.image_size, {"rank": rank, "world_size": world_size}
    pinned = device is not None and device.type == "cuda"
    build = partial(
        _batches,
        options,
        source.settings.max_resolution,
        form=BatchFormat(info.preprocessing, options.dtype, options.channels_last, pinned),
        batch_size=batch_size // world_size,
        threads=loader_threads,
    )
    train_order = partial(training_order, seed=seed, count=info.num_train, batch_size=batch_size, **ranks)
    train_size = partial(options.training_size, full_size=full_size)
    order = partial(validation_order, count=info.num_validation, **ranks)
    return Data(
        info,
        build(
            source.train,
            augmentation=_augmentation(dataset, options),
            schedule=Schedule(train_order, seed, train_size, device),
        ),
        build(
            source.validation,
            augmentation=None,
            schedule=Schedule(order, seed, lambda epoch: full_size, device),
        ),
    )


def _batches(
    options: LoadingOptions,
    longest: int | None,
    split: Split,
    *,
    form: BatchFormat,
    batch_size: int,
    threads: int,
    augmentation: Augmentation | None,
    schedule: Schedule,
) -> BatchLoader:
    """The loader that was asked for, over one split."""
    if options.loader == "torch":
        from data.torch_loader import TorchBatches

        stored = isinstance(split, BetonFile)  # as large as it is to be
        return TorchBatches(
            as_images(split), batch_size, form, augmentation, threads, schedule, None if stored else longest
        )
    from data.ffcv_loader import FfcvBatches
    from data.operations import Pipeline

    return FfcvBatches(Pipeline(origin(split), batch_size, form, augmentation, threads), schedule)


def _augmentation(dataset: str, options: LoadingOptions) -> Augmentation | None:
    crop_area = DATASETS[dataset].crop_area
    if crop_area is None:
        for key in ("crop_area", "color_jitter", "grey_probability"):
            if getattr(options, key):
                raise DataError(f"{key}: dataset {dataset} is not augmented; leave {key} out")
        return None
    return Augmentation(options.crop_area or crop_area, options.color_jitter, options.grey_probability)
