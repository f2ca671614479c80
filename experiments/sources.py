"""Data sets whose images have one object with a mask: Pascal VOC, and the embedded digits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.sources import digits_arrays, digits_split
from data.voc import VocSegmentation, imagenet_to_voc, voc_class_ids
from data.voc_objects import VOC_CLASSES, VocFilter
from experiments.errors import InputError
from experiments.stimuli.item import Item

DATASETS = ("digits", "voc")

NO_CLASS = -1
"""Decision for an output that belongs to no class of the data set; counted wrong."""

DIGITS_SIZE = 32
INK = 128
"""Grey value from which a pixel of a digit is ink: half of full."""


@dataclass(frozen=True, eq=False)
class Source:
    """A data set to make stimuli of."""

    name: str
    class_names: tuple[str, ...]
    """Name of class i at position i."""

    class_ids: np.ndarray
    """(N,) class of each item."""

    load: Callable[[int], Item]
    """Reads one item."""

    about: dict[str, Any]
    """Counts and filter, for the results."""

    def __len__(self) -> int:
        return len(self.class_ids)


def open_source(
    dataset: str,
    path: str | None,
    *,
    split: str = "trainval",
    protocol: str = "thesis",
    limit: int | None = None,
) -> Source:
    """Open a data set.

    Args:
        dataset: One of DATASETS.
        path: Folder of VOC; not for digits.
        split: VOC's train, val or trainval. Of the digits always those held out of training.
        protocol: Whose filter of VOC images; see data.voc_objects.VocFilter.
        limit: Take only about so many images, the same share of every class; None takes all.

    Raises:
        InputError, DataError: the folder or a file in it is not what it should be.
    """
    if dataset not in DATASETS:
        raise InputError(f"--dataset: unknown data set {dataset!r}; one of {', '.join(DATASETS)}")
    if (dataset == "voc") != (path is not None):
        raise InputError("--path: give the VOC folder with --dataset voc, and leave it out with digits")
    source = _voc(str(path), split, protocol) if dataset == "voc" else _digits()
    if len(source) == 0:
        raise InputError(f"--path: no image of {path} passes the filter of --protocol {protocol}")
    return source if limit is None or limit >= len(source) else _limited(source, limit)


def _digits() -> Source:
    """The 359 held-out digits. Ink is the object; a silhouette is white on black, as digits are.

    The whole image is shown: digits were centred and scaled to fill it when they were recorded. Their strokes
    are a quarter as wide as the objects that the protocols' border widths are meant for.
    """
    images, labels = digits_arrays(DIGITS_SIZE)
    positions = digits_split(labels)["validation"]

    def load(index: int) -> Item:
        image = images[positions[index]]
        mask = image[:, :, 0] >= INK
        # The pixels where enlarging mixed ink and background stand for VOC's undecided border.
        void = (image[:, :, 0] >= INK // 2) & ~mask
        name = f"digit-{positions[index]:04d}"
        return Item(name, int(labels[positions[index]]), image, mask, void, None, ground=0, unit=0.25)

    names = tuple(str(digit) for digit in range(10))
    return Source("digits", names, labels[positions], load, {"images": len(positions), "split": "validation"})


def _voc(path: str, split: str, protocol: str) -> Source:
    keep = VocFilter.thesis() if protocol == "thesis" else VocFilter()
    photos = VocSegmentation(path, split, keep)  # type: ignore[arg-type]

    def load(index: int) -> Item:
        photo = photos[index]
        return Item(photo.name, photo.class_id, photo.image, photo.object_mask, photo.void_mask, photo.box)

    counts = photos.counts
    about = {
        "images": counts.kept,
        "split": split,
        "listed": counts.listed,
        "dropped": counts.dropped,
        "per_class": counts.per_class,
    }
    return Source("voc", VOC_CLASSES, np.array(photos.class_ids, dtype=np.int64), load, about)


def _limited(source: Source, limit: int) -> Source:
    """Every n-th image of each class."""
    chosen: list[int] = []
    for class_id in np.unique(source.class_ids):
        members = np.flatnonzero(source.class_ids == class_id)
        count = max(1, round(limit * len(members) / len(source)))
        chosen += members[np.linspace(0, len(members) - 1, count).round().astype(int)].tolist()
    kept = np.array(sorted(set(chosen)))
    return Source(
        source.name,
        source.class_names,
        source.class_ids[kept],
        lambda index: source.load(int(kept[index])),
        {**source.about, "limited_to": len(kept)},
    )


def class_of_outputs(source: Source, class_names: Sequence[str]) -> np.ndarray:
    """Class of each output of a network, NO_CLASS where it has none; InputError if none has one."""
    if source.name == "digits":
        known = {name: i for i, name in enumerate(source.class_names)}
        ids = np.array([known.get(name, NO_CLASS) for name in class_names])
    else:
        voc = voc_class_ids(class_names)
        if not any(voc) and len(class_names) == 1000:
            voc = imagenet_to_voc()  # ImageNet in its usual order, without names
        ids = np.array([class_id or NO_CLASS for class_id in voc])
    if (ids == NO_CLASS).all():
        some = ", ".join(class_names[:3])
        raise InputError(f"--dataset: the network's classes ({some}, ...) are none of {source.name}'s")
    return ids
