"""The compiled part of the pipelines: read, decode, crop, resize, flip and normalise, one image at a time.

ffcv compiles every operation of every new loader anew, 4 to 7 s each time, because its generated functions
close over one another and over C addresses. The functions here are plain module functions that reach ffcv's C
code by symbol name, so numba keeps them on disk: compiled once per machine, 0.3 s to load afterwards.

Everything compiled stays in this one file: numba recompiles when the file of a function changes, but doesn't
notice changes in other files that it calls.

Crops are those of ffcv and torchvision (Szegedy et al. 2015, arXiv:1409.4842), except that the random numbers
are hashes of (epoch key, image index, draw): threads, batch size and world size change no pixel.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numpy as np
from ffcv import libffcv
from numba import njit, types

from data import order

_GOLDEN = np.uint64(order.GOLDEN)
_MIX_1 = np.uint64(order.MIX_1)
_MIX_2 = np.uint64(order.MIX_2)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)

JPEG = 0
"""Storage mode of ffcv's RGBImageField; the other one is raw pixels."""

CROP_TRIES = 10
CROP_AREA = (0.08, 1.0)
"""Share of the image's area that a training crop covers."""

CROP_ASPECT = (3 / 4, 4 / 3)
"""Width over height of a training crop."""

_LOG_ASPECT = (float(np.log(CROP_ASPECT[0])), float(np.log(CROP_ASPECT[1])))
_FLIP_DRAW = 4 * CROP_TRIES


def _external(name: str, function: Any, result: Any, *arguments: Any) -> Any:
    assert len(function.argtypes) == len(arguments), f"ffcv's C function {name} takes other arguments here"
    symbol = f"recurrent_vision_ffcv_{name}"
    llvm.add_symbol(symbol, ctypes.cast(function, ctypes.c_void_p).value)
    return types.ExternalFunction(symbol, result(*arguments))


_u32, _i64 = types.uint32, types.int64
_imdecode = _external(
    "imdecode", libffcv.ctypes_imdecode, types.int32,
    types.intp, types.uint64, _u32, _u32, types.intp, *[_u32] * 6, types.boolean, types.boolean,
)  # fmt: skip
_resize = _external("resize", libffcv.ctypes_resize, types.void, *[_i64] * 11)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither this folder nor the user's cache folder can be written
        return njit(nogil=True)(function)


@_compiled
def hash_index(key: np.uint64, index: int) -> np.uint64:
    """As order.hash_indices, for one index."""
    value = (np.uint64(index) ^ key) + _GOLDEN
    value = (value ^ (value >> _S30)) * _MIX_1
    value = (value ^ (value >> _S27)) * _MIX_2
    return value ^ (value >> _S31)


@_compiled
def uniform(key: np.uint64, draw: int) -> float:
    """The draw-th number in [0, 1) under a key."""
    return np.float64(hash_index(key, draw) >> _S11) * (1.0 / 9007199254740992.0)


@_compiled
def random_crop(key: np.uint64, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a training crop."""
    for attempt in range(CROP_TRIES):
        draw = 4 * attempt
        area = height * width * (CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * uniform(key, draw))
        aspect = np.exp(_LOG_ASPECT[0] + (_LOG_ASPECT[1] - _LOG_ASPECT[0]) * uniform(key, draw + 1))
        w = int(round(np.sqrt(area * aspect)))
        h = int(round(np.sqrt(area / aspect)))
        if 0 < w <= width and 0 < h <= height:
            top = int(uniform(key, draw + 2) * (height - h + 1))
            left = int(uniform(key, draw + 3) * (width - w + 1))
            return top, left, h, w
    h = min(height, int(round(width / CROP_ASPECT[0])))
    w = min(width, int(round(height * CROP_ASPECT[1])))
    return (height - h) // 2, (width - w) // 2, h, w


@_compiled
def centre_crop(height: int, width: int, ratio: float) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the validation crop."""
    side = max(1, int(ratio * min(height, width)))
    return (height - side) // 2, (width - side) // 2, side, side


@_compiled
def decode_images(
    images: np.ndarray,
    failed: np.ndarray,
    file: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    modes: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    indices: np.ndarray,
    table: np.ndarray,
    crop_ratio: float,
    augment: bool,
    key: np.uint64,
) -> None:
    """Fill images (B, 3, S, S) from bytes of the file; failed[i] says whether image i could not be decoded.

    `table` (256, 3) maps a pixel value to its normalised value per channel.
    """
    side = images.shape[2]
    largest = 0
    for i in range(len(indices)):
        largest = max(largest, heights[i] * widths[i] * 3)
    decoded = np.empty(largest, np.uint8)
    resized = np.empty((side, side, 3), np.uint8)

    for i in range(len(indices)):
        height, width = heights[i], widths[i]
        stored = file[starts[i] : starts[i] + sizes[i]]
        if modes[i] == JPEG:
            status = _imdecode(
                stored.ctypes.data, stored.size, height, width, decoded.ctypes.data,
                height, width, 0, 0, 1, 1, False, False,
            )  # fmt: skip
            failed[i] = status != 0
            if failed[i]:
                continue
            address = decoded.ctypes.data
        else:
            failed[i] = False
            address = stored.ctypes.data

        image_key = hash_index(key, indices[i])
        if augment:
            top, left, h, w = random_crop(image_key, height, width)
            flip = uniform(image_key, _FLIP_DRAW) < 0.5
        else:
            top, left, h, w = centre_crop(height, width, crop_ratio)
            flip = False
        _resize(0, address, height, width, top, top + h, left, left + w, resized.ctypes.data, side, side)

        for y in range(side):
            for x in range(side):
                source = side - 1 - x if flip else x
                for channel in range(3):
                    images[i, channel, y, x] = table[resized[y, source, channel], channel]
