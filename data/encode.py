"""Images made ready for a .beton file, by several processes, in order."""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.images import ImageList, decode
from data.info import DataError
from data.order import hash_values

WriteMode = Literal["jpg", "raw", "proportion"]
REENCODED_QUALITY = 90
"""JPEG quality of images that have to be encoded while none is given."""

_CHUNK = 16
"""Images that a process works on at a time."""


@dataclass(frozen=True)
class WriteSettings:
    """How images are stored."""

    write_mode: WriteMode = "jpg"
    """`jpg` is small, `raw` needs no decoding (4 to 10 times the size), `proportion` is half and half."""

    max_resolution: int | None = None
    """Images with a longer side are shrunk to this many pixels, their shape kept; None keeps all sizes."""

    jpeg_quality: int | None = None
    """1 to 100; None keeps JPEG files as they are unless they have to shrink, and encodes others with 90."""

    def __post_init__(self) -> None:
        if self.write_mode not in ("jpg", "raw", "proportion"):
            raise DataError(f"--write-mode: must be jpg, raw or proportion, got {self.write_mode!r}")
        if self.max_resolution is not None and not 8 <= self.max_resolution <= 65535:
            raise DataError(f"--max-resolution: must be from 8 to 65535 pixels, got {self.max_resolution}")
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise DataError(f"--jpeg-quality: must be from 1 to 100, got {self.jpeg_quality}")


@dataclass(frozen=True)
class Encoded:
    """An image as it will lie in the file."""

    jpeg: bool
    height: int
    width: int
    content: bytes


def encode(images: ImageList, index: int, settings: WriteSettings) -> Encoded:
    """Read, check, shrink and encode one image; DataError names one that can't be decoded."""
    stored = images.stored(index)
    pixels = images.read(index) if stored is None else decode(stored, images.name(index))
    problem = _problem(pixels)
    if problem:
        raise DataError(f"{images.name(index)}: {problem}")
    jpeg = settings.write_mode == "jpg"
    if settings.write_mode == "proportion":
        jpeg = bool(hash_values(np.zeros(1, np.uint64), np.array([index], np.uint64))[0] & np.uint64(1))
    small = shrunk(pixels, settings.max_resolution)
    height, width = small.shape[:2]
    if not jpeg:
        return Encoded(False, height, width, np.ascontiguousarray(small).tobytes())
    if stored is not None and small is pixels and settings.jpeg_quality is None and _three_channels(stored):
        return Encoded(True, height, width, stored)
    import cv2

    flags = [cv2.IMWRITE_JPEG_QUALITY, settings.jpeg_quality or REENCODED_QUALITY]
    good, content = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), flags)
    if not good:
        raise DataError(f"{images.name(index)}: cannot be encoded as JPEG")
    return Encoded(True, height, width, content.tobytes())


def shrunk(pixels: NDArray[np.uint8], longest: int | None) -> NDArray[np.uint8]:
    """The image with its longer side at most `longest` pixels; the same object where it fits already."""
    height, width = pixels.shape[:2]
    if longest is None or max(height, width) <= longest:
        return pixels
    import cv2

    ratio = longest / max(height, width)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _problem(pixels: NDArray[np.uint8]) -> str | None:
    if pixels.dtype != np.uint8:
        return f"pixels must be uint8, got {pixels.dtype}"
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        return f"must be (height, width, 3), got {pixels.shape}"
    if min(pixels.shape[:2]) < 1 or max(pixels.shape[:2]) > 65535:
        return f"sides must be from 1 to 65535 pixels, got {pixels.shape[:2]}"
    return None


def _three_channels(jpeg: bytes) -> bool:
    """Whether a file is a JPEG that decoders turn into RGB alike: not CMYK, not another format misnamed."""
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as image:
        return image.format == "JPEG" and image.mode == "RGB"


def encode_all(images: ImageList, settings: WriteSettings, processes: int) -> Iterator[Encoded | DataError]:
    """Every image in order; a DataError in the place of one that can't be used.

    With one process all happens in this one. The result doesn't depend on the number.
    """
    count = len(images.labels)
    if processes == 1:
        for index in range(count):
            yield _encode_or_error(images, index, settings)
        return
    # Forking a process with threads may hang: new interpreters instead.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _set_up, (images, settings)) as pool:
        starts = iter(range(0, count, _CHUNK))
        waiting: deque[Future[list[Encoded | DataError]]] = deque()
        try:
            for start in islice(starts, 4 * processes):
                waiting.append(pool.submit(_encode_chunk, start, min(start + _CHUNK, count)))
            while waiting:
                yield from waiting.popleft().result()
                for start in islice(starts, 1):
                    waiting.append(pool.submit(_encode_chunk, start, min(start + _CHUNK, count)))
        except BrokenProcessPool:
            raise DataError(
                f"{images.origin}: a process that encodes images was killed, maybe for lack of memory; "
                "try fewer processes"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


_work: tuple[ImageList, WriteSettings]


def _set_up(images: ImageList, settings: WriteSettings) -> None:
    global _work
    _work = images, settings
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process of a pool would wait for work forever after a kill -9 of the one that started it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode_chunk(start: int, stop: int) -> list[Encoded | DataError]:
    return [_encode_or_error(_work[0], index, _work[1]) for index in range(start, stop)]


def _encode_or_error(images: ImageList, index: int, settings: WriteSettings) -> Encoded | DataError:
    try:
        return encode(images, index, settings)
    except DataError as error:
        return error
