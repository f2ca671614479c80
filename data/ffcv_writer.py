"""ffcv's DatasetWriter without its worker processes, which hang when one of them fails.

Import after `ffcv_setup.require_ffcv()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.rgb_image import IMAGE_MODES
from ffcv.memory_allocator import MemoryAllocator
from ffcv.writer import DatasetWriter, handle_sample

from data.encode import Encoded


class EncodedImageField(RGBImageField):
    """An image field whose images have been encoded already."""

    def encode(self, destination: Any, image: Encoded, malloc: Callable[[int], tuple[int, Any]]) -> None:
        """Enter an image into the index and its bytes into the file."""
        destination["mode"] = IMAGE_MODES["jpg" if image.jpeg else "raw"]
        destination["height"], destination["width"] = image.height, image.width
        destination["data_ptr"], storage = malloc(len(image.content))
        storage[:] = np.frombuffer(image.content, np.uint8)


class InProcessWriter(DatasetWriter):
    """Writes sample after sample in this process; an error in a sample is raised here."""

    def write(self, samples: Iterable[tuple[Encoded, int]], most: int) -> None:
        """Write all samples, at most `most`."""
        self.num_samples = most
        self.prepare()  # writes the header, makes the shared memory that finalize() copies the index from
        try:
            metadata = np.zeros(most, dtype=self.metadata_type)
            allocator = MemoryAllocator(self.fname, self.data_region_start, self.page_size)
            count = 0
            fields = {**self.fields, "image": EncodedImageField()}
            with allocator:
                for sample in samples:
                    handle_sample(sample, count, metadata.dtype.names, metadata, allocator, fields)
                    count += 1
            self.header["num_samples"] = count  # the rows of skipped ones stay empty behind the others
            self.metadata_sm.buf[: metadata.nbytes] = metadata.tobytes()
            self.finalize(allocator.allocations)
        finally:
            self.metadata_sm.close()
            self.metadata_sm.unlink()


def write_encoded(path: Path, samples: Iterable[tuple[Encoded, int]], most: int, page_size: int) -> None:
    """Write a .beton file with the fields image and label."""
    fields = {"image": RGBImageField(), "label": IntField()}
    InProcessWriter(str(path), fields, page_size=page_size, num_workers=1).write(samples, most)
