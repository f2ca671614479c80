"""Stimuli of the shapebias study (protocol "shapebias"; Jarvers & Neumann 2023, 10.3389/fcomp.2023.1113609).

The object's box is enlarged by a fifth of its size on every side and cut at the image's edge. All stimuli are
resized to a square, nearest pixel, which keeps narrow structures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, center_of_mass, gaussian_filter

from experiments.stimuli.item import Cutout, Item, Mask, Pixels, grey, whole

ENLARGED = 1.2
BORDER_WIDTH = 5
"""Twice the pixels by which serrated widens VOC's undecided border, to both sides."""

SIGMA = 2.0
"""Pixels; standard deviation of the filter that makes noise coarse."""


def cut_out(item: Item) -> Cutout:
    """The enlarged box of the object. VOC's corners, which count from 1, are used as they are written."""
    if item.box is None:
        return whole(item)
    rows, columns = item.mask.shape
    x = _enlarged(item.box.left + 1, item.box.right, columns)
    y = _enlarged(item.box.top + 1, item.box.bottom, rows)
    return Cutout(item.image[y, x], item.mask[y, x], item.void[y, x])


def _enlarged(low: int, high: int, limit: int) -> slice:
    """Each corner ENLARGED times as far from the opposite one, within the image."""
    length = high - low
    return slice(max(0, round(high - ENLARGED * length)), min(limit, round(low + ENLARGED * length)))


def frankenstein(cutout: Cutout) -> Pixels:
    """The silhouette with its lower part flipped left to right and moved to where its edges join.

    After Baker & Elder 2022: local shape stays, the configuration is destroyed. The cut is at the row of the
    centre of mass. The lower part moves by first - (width - last), where first and last are the object's
    outermost columns in the row above the cut: one pixel further left than an exact join, as in the study.
    """
    mask = cutout.mask.copy()
    cut = round(float(center_of_mass(mask)[0])) if mask.any() else 0
    columns = np.flatnonzero(mask[cut - 1]) if cut else np.array([], dtype=np.int64)
    flipped = mask[cut:, ::-1]
    # The study stops with an error where there is no object above the cut; then nothing has to be joined.
    shift = int(columns[0]) - (mask.shape[1] - int(columns[-1])) if columns.size else 0
    mask[cut:] = _shifted(flipped, shift)
    return grey(np.where(mask, 0, 255))


def _shifted(mask: Mask, columns: int) -> Mask:
    """The mask moved right by `columns` (left where negative); what comes in is empty."""
    result = np.zeros_like(mask)
    width = mask.shape[1]
    if abs(columns) < width:
        result[:, max(0, columns) : width + min(0, columns)] = mask[
            :, max(0, -columns) : width - max(0, columns)
        ]
    return result


def serrated(cutout: Cutout, noise: NDArray[np.float64], unit: float = 1.0) -> Pixels:
    """The silhouette with coarse noise on its border; `noise` is (H, W), normally distributed."""
    coarse = gaussian_filter(noise, sigma=SIGMA * unit) > 0
    wider = max(1, round(BORDER_WIDTH // 2 * unit))
    border = binary_dilation(cutout.void, iterations=wider)
    return grey(np.where(border, coarse, ~cutout.mask) * 255)
