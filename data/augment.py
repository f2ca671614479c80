"""What is shown of each image of a batch: crop, flip and colour as a function of (epoch key, image index).

Both loaders take their numbers from here, so that threads, batch size, number of workers and the loader
itself change no crop. Crops are those of ffcv and torchvision (Szegedy et al. 2015, arXiv:1409.4842); the
random numbers are hashes of (epoch key, image index, draw).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.order import hash_values

CROP_TRIES = 10
CROP_ASPECT = (3 / 4, 4 / 3)
"""Width over height of a training crop."""

# Numbers of the draws of an image: each has its place, so that options change nothing but their own.
_FLIP_DRAW = 4 * CROP_TRIES
_COLOR_DRAW = _FLIP_DRAW + 1
_GREY_DRAW = _COLOR_DRAW + 3
_DRAWS = _GREY_DRAW + 1


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; flips happen to one image in two."""

    crop_area: float = 0.08
    """Smallest share of the image's area that a crop covers; the largest is 1."""

    color_jitter: float = 0.0
    """Half-width of the range of the three colour factors around 1."""

    grey_probability: float = 0.0
    """Share of the images shown without colour."""


@dataclass(frozen=True)
class Views:
    """What is shown of the images of a batch."""

    crops: NDArray[np.int64]
    """(B, 4): top, left, height and width in pixels of the stored image."""

    flips: NDArray[np.bool_]
    """(B,): whether the crop is mirrored left to right."""

    colors: NDArray[np.float32]
    """(B, 3): factors of brightness, contrast and saturation; 1 changes nothing, saturation 0 is grey."""


def uniform(key: int, indices: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1) for each image: (B, count)."""
    image_keys = hash_values(np.array([key], np.uint64), indices.astype(np.uint64))
    bits = hash_values(image_keys[:, None], np.arange(count, dtype=np.uint64)[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def training_views(
    augmentation: Augmentation,
    key: int,
    indices: NDArray[np.int64],
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
) -> Views:
    """Random crops, flips and colours of images with these indices and sizes, under an epoch's key."""
    draws = uniform(key, indices, _DRAWS)
    jitter = 1 + augmentation.color_jitter * (2 * draws[:, _COLOR_DRAW:_GREY_DRAW] - 1)
    jitter[draws[:, _GREY_DRAW] < augmentation.grey_probability, 2] = 0
    crops = random_crops(draws[:, :_FLIP_DRAW], augmentation.crop_area, heights, widths)
    return Views(crops, draws[:, _FLIP_DRAW] < 0.5, jitter.astype(np.float32))


def random_crops(
    draws: NDArray[np.float64], smallest: float, heights: NDArray[np.int64], widths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Crops from 4 draws per try: the first try that fits, else the largest central one that is allowed."""
    area_draw, aspect_draw, top_draw, left_draw = np.moveaxis(draws.reshape(len(draws), CROP_TRIES, 4), 2, 0)
    height, width = heights[:, None], widths[:, None]
    area = height * width * (smallest + (1 - smallest) * area_draw)
    low, high = np.log(CROP_ASPECT)
    aspect = np.exp(low + (high - low) * aspect_draw)
    w = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    h = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    top = (top_draw * (height - h + 1)).astype(np.int64)
    left = (left_draw * (width - w + 1)).astype(np.int64)
    first = np.argmax(fits, axis=1)[:, None]
    chosen = np.stack([np.take_along_axis(part, first, 1)[:, 0] for part in (top, left, h, w)], axis=1)

    h = np.minimum(heights, np.rint(widths / CROP_ASPECT[0]).astype(np.int64))
    w = np.minimum(widths, np.rint(heights * CROP_ASPECT[1]).astype(np.int64))
    central = np.stack([(heights - h) // 2, (widths - w) // 2, h, w], axis=1)
    return np.where(fits.any(axis=1)[:, None], chosen, central)


def central_views(ratio: float, heights: NDArray[np.int64], widths: NDArray[np.int64]) -> Views:
    """The central square of `ratio` times the shorter side, neither mirrored nor recoloured."""
    side = np.maximum(1, (ratio * np.minimum(heights, widths)).astype(np.int64))
    crops = np.stack([(heights - side) // 2, (widths - side) // 2, side, side], axis=1)
    return Views(crops, np.zeros(len(side), np.bool_), np.ones((len(side), 3), np.float32))


def views_of(
    augmentation: Augmentation | None,
    crop_ratio: float,
    key: int,
    indices: NDArray[np.int64],
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
) -> Views:
    """Random views under an epoch's key, or the central ones where there is no augmentation."""
    if augmentation is None:
        return central_views(crop_ratio, heights, widths)
    return training_views(augmentation, key, indices, heights, widths)
