"""Stimuli as the thesis made them (protocol "thesis"), to the pixel.

Its box is enlarged 1.4 times and moved into the image; where it is larger than the image, the rest is black.
Everything is then resized to a square, nearest pixel. Known weaknesses are kept, as this protocol is for
comparing with the thesis' figures:

- frankenstein flips the lower half of the *resized* silhouette without joining the halves;
- serrated makes the border grow outwards only, and leaves grey value 1 for 0 in half of the object.

The thesis drew the noise of serrated anew for every model and time step; here each image keeps its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, gaussian_filter

from experiments.stimuli.item import Cutout, Item, Pixels, grey, silhouette, whole

ENLARGED = 1.4
BORDER_WIDTH = 10
"""Pixels by which the object of serrated grows."""

SIGMA = 2.0
"""Pixels; standard deviation of the filter that makes noise coarse."""


def cut_out(item: Item) -> Cutout:
    """The enlarged box of the object.

    VOC's corners count from 1 and include the last pixel. The original takes xmin and ymin for positions
    counted from 0, and xmax - xmin for the width.
    """
    if item.box is None:
        return whole(item)
    # float32 throughout, as in the original: rounding down depends on it.
    x, y, width, height = np.array(
        [item.box.left + 1, item.box.top + 1, item.box.width - 1, item.box.height - 1], dtype=np.float32
    )
    factor = np.float32(ENLARGED)
    rows, columns = item.mask.shape
    left = _start(x, width, width * factor, columns)
    top = _start(y, height, height * factor, rows)
    region = (top, left, int(height * factor), int(width * factor))
    return Cutout(_crop(item.image, *region), _crop(item.mask, *region), _crop(item.void, *region))


def _start(first: np.float32, length: np.float32, enlarged: np.float32, limit: int) -> int:
    """First pixel of a box enlarged around its middle and moved into the image along one axis."""
    start = np.maximum(np.float32(0), first - (enlarged - length) / np.float32(2))
    return int(np.minimum(start, np.float32(limit) - enlarged))


def _crop(pixels: NDArray[np.generic], top: int, left: int, height: int, width: int) -> NDArray:
    """A rectangle of an image; what lies outside the image is 0."""
    result = np.zeros((height, width, *pixels.shape[2:]), dtype=pixels.dtype)
    rows = slice(max(top, 0), min(top + height, pixels.shape[0]))
    columns = slice(max(left, 0), min(left + width, pixels.shape[1]))
    inside = pixels[rows, columns]
    result[rows.start - top :, columns.start - left :][: inside.shape[0], : inside.shape[1]] = inside
    return result


def frankenstein(cutout: Cutout, size: int) -> Pixels:
    """The silhouette, resized, with its lower half flipped left to right."""
    # The original resizes this one with PIL, which takes other pixels than torch.
    resized = np.array(
        Image.fromarray(silhouette(cutout.mask)).resize((size, size), Image.Resampling.NEAREST)
    )
    resized[size // 2 :] = resized[size // 2 :, ::-1].copy()
    return resized


def serrated(cutout: Cutout, noise: NDArray[np.float64], unit: float = 1.0) -> Pixels:
    """The silhouette with a band of coarse noise around it; `noise` is (H, W), normally distributed."""
    coarse = gaussian_filter(noise, sigma=SIGMA * unit) > 0
    band = binary_dilation(cutout.mask, iterations=max(1, round(BORDER_WIDTH * unit)))
    around = np.where(band & ~coarse, 0, 255)
    inside = np.where(coarse, 0, 1)  # 1 where the original's sum of -255 became an unsigned byte
    return grey(np.where(cutout.mask, inside, around))
