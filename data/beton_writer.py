"""ffcv's DatasetWriter without its worker processes, which hang when one of them fails.

Import after `ffcv_setup.require_ffcv()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.memory_allocator import MemoryAllocator
from ffcv.writer import DatasetWriter, handle_sample

from data.info import DataError


class InProcessWriter(DatasetWriter):
    """Writes sample after sample in this process; an error in a sample is raised here."""

    def write(self, samples: Sequence[tuple[Any, int]], num_classes: int) -> None:
        self.num_samples = len(samples)
        self.prepare()  # writes the header, makes the shared memory that finalize() copies the index from
        try:
            metadata = np.zeros(self.num_samples, dtype=self.metadata_type)
            allocator = MemoryAllocator(self.fname, self.data_region_start, self.page_size)
            with allocator:
                for index in range(self.num_samples):
                    image, label = samples[index]
                    if not 0 <= label < num_classes:
                        raise DataError(f"sample {index} has label {label}; there are {num_classes} classes")
                    names = metadata.dtype.names
                    handle_sample((image, label), index, names, metadata, allocator, self.fields)
            self.metadata_sm.buf[: metadata.nbytes] = metadata.tobytes()
            self.finalize(allocator.allocations)
        finally:
            self.metadata_sm.close()
            self.metadata_sm.unlink()


def write_samples(
    path: Path, samples: Sequence[tuple[Any, int]], num_classes: int, page_size: int, **image_options: Any
) -> None:
    """Write a .beton file with the fields image and label."""
    fields = {"image": RGBImageField(**image_options), "label": IntField()}
    InProcessWriter(str(path), fields, page_size=page_size, num_workers=1).write(samples, num_classes)
