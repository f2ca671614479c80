"""A photo with one object to be recognised, and the part of it that is shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data.voc_objects import Box
from experiments.errors import InputError

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Item:
    """A photo, where its object is, and which class that belongs to."""

    name: str
    """Unique within its data set; random stimuli are drawn from it."""

    class_id: int
    """Class of the object, a position in the data set's class names."""

    image: Pixels
    """(H, W, 3)."""

    mask: Mask
    """(H, W): the object's pixels."""

    void: Mask
    """(H, W): undecided border of the object."""

    box: Box | None
    """Where the object is; None to show the whole image."""

    ground: int = 255
    """What an empty background looks like, 255 (white) or 0; a silhouette is the opposite."""

    unit: float = 1.0
    """Widths of borders and noise, which protocols give for VOC photos, are multiplied by this."""


@dataclass(frozen=True)
class Cutout:
    """The part of an item that is shown."""

    image: Pixels
    """(H, W, 3)."""

    mask: Mask
    """(H, W)."""

    void: Mask
    """(H, W)."""


def not_empty(cutout: Cutout, item: Item) -> Cutout:
    """The cutout; InputError where a protocol's rounding leaves nothing of a box one pixel wide or high."""
    if not cutout.mask.size:
        raise InputError(
            f"{item.name}: its object is {item.box}, too thin to be cut out; leave the image out"
        )
    return cutout


def whole(item: Item) -> Cutout:
    """The whole image."""
    return Cutout(item.image, item.mask, item.void)


def padded_to_square(cutout: Cutout, ground: int) -> Cutout:
    """The cutout in the middle of a square of `ground`, so that resizing keeps its aspect ratio."""
    height, width = cutout.mask.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    around = ((top, side - height - top), (left, side - width - left))
    return Cutout(
        np.pad(cutout.image, (*around, (0, 0)), constant_values=ground),
        np.pad(cutout.mask, around),
        np.pad(cutout.void, around),
    )


def grey(values: NDArray[np.generic]) -> Pixels:
    """(H, W) values 0 to 255 as (H, W, 3) pixels."""
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


def silhouette(mask: Mask) -> Pixels:
    """The object black, on white: (H, W, 3)."""
    return grey(np.where(mask, 0, 255))


def resize(pixels: Pixels, size: int) -> Pixels:
    """Square of `size` pixels by the nearest pixel, as torch picks it."""
    planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, size=(size, size), mode="nearest")
    return resized[0].permute(1, 2, 0).contiguous().numpy()
