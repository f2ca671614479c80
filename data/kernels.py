"""The compiled part of the pipelines: read, decode, crop, resize, flip and normalise, one image at a time.

ffcv compiles every operation of every new loader anew, 4 to 7 s each time, because its generated functions
close over one another and over C addresses. The functions here are plain module functions that reach ffcv's C
code by symbol name, so numba keeps them on disk: compiled once per machine, 0.3 s to load afterwards.

Everything compiled stays in this one file: numba recompiles when the file of a function changes, but doesn't
notice changes in other files that it calls.

Nothing here is random: what is shown of an image comes from `augment`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numpy as np
from ffcv import libffcv
from numba import njit, types

JPEG = 0
"""Storage mode of ffcv's RGBImageField; the other one is raw pixels."""


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
def recolor(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> None:
    """Scale brightness, contrast (around the mean grey) and saturation of image (S, S, 3) in place.

    As `pixels.recolored`, to the last bit.
    """
    one_half, low, high = np.float32(0.5), np.float32(0), np.float32(255)
    side = image.shape[0]
    total = np.int64(0)
    for y in range(side):
        for x in range(side):
            red, green, blue = image[y, x]
            total += 299 * np.int64(red) + 587 * np.int64(green) + 114 * np.int64(blue)
    pivot = np.float32(total / (1000.0 * side * side)) * brightness
    for y in range(side):
        for x in range(side):
            red = min(max(np.float32(image[y, x, 0]) * brightness, low), high)
            green = min(max(np.float32(image[y, x, 1]) * brightness, low), high)
            blue = min(max(np.float32(image[y, x, 2]) * brightness, low), high)
            red = min(max(pivot + contrast * (red - pivot), low), high)
            green = min(max(pivot + contrast * (green - pivot), low), high)
            blue = min(max(pivot + contrast * (blue - pivot), low), high)
            grey = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
            image[y, x, 0] = np.uint8(min(max(grey + saturation * (red - grey), low), high) + one_half)
            image[y, x, 1] = np.uint8(min(max(grey + saturation * (green - grey), low), high) + one_half)
            image[y, x, 2] = np.uint8(min(max(grey + saturation * (blue - grey), low), high) + one_half)


@_compiled
def decode_images(
    rows: np.ndarray,
    failed: np.ndarray,
    file: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    modes: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    crops: np.ndarray,
    flips: np.ndarray,
    colors: np.ndarray,
    table: np.ndarray,
    side: int,
    channel_stride: int,
    pixel_stride: int,
) -> None:
    """Fill rows (B, 3 * side * side) from bytes of the file; failed[i] says that image i can't be decoded.

    Crops, flips and colors are those of `augment.Views`, `table` and the strides those of `BatchFormat`.
    """
    largest = 0
    for i in range(len(rows)):
        largest = max(largest, heights[i] * widths[i] * 3)
    decoded = np.empty(largest, np.uint8)
    resized = np.empty((side, side, 3), np.uint8)

    for i in range(len(rows)):
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

        top, left, h, w = crops[i]
        _resize(0, address, height, width, top, top + h, left, left + w, resized.ctypes.data, side, side)
        if colors[i, 0] != 1 or colors[i, 1] != 1 or colors[i, 2] != 1:
            recolor(resized, colors[i, 0], colors[i, 1], colors[i, 2])

        for y in range(side):
            for x in range(side):
                source = side - 1 - x if flips[i] else x
                at = (y * side + x) * pixel_stride
                for channel in range(3):
                    rows[i, at + channel * channel_stride] = table[resized[y, source, channel], channel]
