"""The pixel work of the pipelines without ffcv: crop, resize, flip, recolour, normalise, with OpenCV."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data.augment import central_views
from data.batch_format import BatchFormat
from data.info import DataError, Preprocessing


def require_opencv() -> Any:
    """Import OpenCV; DataError says what to install."""
    try:
        import cv2
    except ImportError as error:
        raise DataError(
            f"images are resized by OpenCV, which cannot be imported here ({error}); "
            "apt-get install -y libgl1 libglib2.0-0, or pip install opencv-python-headless"
        ) from error
    return cv2


def shown(
    pixels: NDArray[np.uint8], crop: NDArray[np.int64], flip: bool, colors: NDArray[np.float32], side: int
) -> NDArray[np.uint8]:
    """What is shown of an image (H, W, 3): (side, side, 3); crop, flip and colors as in `augment.Views`."""
    cv2 = require_opencv()
    top, left, height, width = crop.tolist()
    cropped = pixels[top : top + height, left : left + width]
    resized = np.asarray(cv2.resize(cropped, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    if (colors != 1).any():
        resized = recolored(resized, *colors)
    return resized[:, ::-1] if flip else resized


def recolored(
    image: NDArray[np.uint8], brightness: np.float32, contrast: np.float32, saturation: np.float32
) -> NDArray[np.uint8]:
    """Scale brightness, contrast (around the mean grey) and saturation of an image (S, S, 3).

    As `kernels.recolor`, to the last bit.
    """
    total = int((image.astype(np.int64) * (299, 587, 114)).sum())
    pivot = np.float32(total / (1000.0 * image.shape[0] * image.shape[1])) * brightness
    bright = np.clip(image.astype(np.float32) * brightness, 0, 255)
    clear = np.clip(pivot + contrast * (bright - pivot), 0, 255)
    red, green, blue = np.moveaxis(clear, 2, 0)
    grey = (np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue)[..., None]
    vivid = np.clip(grey + saturation * (clear - grey), 0, 255)
    return (vivid + np.float32(0.5)).astype(np.uint8)


def to_batch(images: NDArray[np.uint8], form: BatchFormat) -> Tensor:
    """Normalised batch (B, 3, S, S) of images (B, S, S, 3)."""
    count, side = images.shape[:2]
    batch, rows = form.empty(count, side)
    by_channel = (
        rows.reshape(count, side, side, 3) if form.channels_last else rows.reshape(count, 3, side, side)
    )
    for channel in range(3):
        target = by_channel[..., channel] if form.channels_last else by_channel[:, channel]
        target[...] = form.table[:, channel][images[..., channel]]
    return batch


def prepare_image(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> Tensor:
    """An image (H, W, 3), 0..255, as a network sees it in validation: (3, S, S) float32."""
    height, width = (np.array([side]) for side in pixels.shape[:2])
    view = central_views(preprocessing.crop_ratio, height, width)
    image = shown(pixels, view.crops[0], False, view.colors[0], preprocessing.image_size)
    return to_batch(image[None], BatchFormat(preprocessing))[0]
