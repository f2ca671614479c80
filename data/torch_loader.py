"""The same batches through torch's DataLoader, for machines where ffcv can't be installed.

Order, crops, flips and colours are bit for bit those of the ffcv loader. Pixels may differ by one level of
255 where OpenCV's versions round differently, and by up to ten where JPEGs are decoded by other code. Images
that are converted for the ffcv loader because they are large or no JPEGs are shrunk here alike, but do not go
through JPEG again: a few levels of difference in photographs, tens in noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data.augment import Augmentation, views_of
from data.batch_format import BatchFormat
from data.batches import Batch, Batches, Schedule
from data.encode import shrunk
from data.images import ImageList
from data.info import DataError
from data.pixels import require_opencv, shown, to_batch


@dataclass(frozen=True)
class EpochImages(Dataset["Batch | DataError"]):
    """The images of an epoch; fetched by the batch."""

    images: ImageList
    form: BatchFormat
    augmentation: Augmentation | None
    key: int
    image_size: int
    longest: int | None
    """Longer images are shrunk to this first, as in a .beton file."""

    def __getitems__(self, indices: list[int]) -> Batch | DataError:
        """A batch of these images, or the error, which would become a traceback if it was raised."""
        chosen = np.array(indices, np.int64)
        try:
            stored = [shrunk(self.images.read(index), self.longest) for index in indices]
        except DataError as error:
            return error
        heights, widths = (np.array([pixels.shape[axis] for pixels in stored]) for axis in (0, 1))
        ratio = self.form.preprocessing.crop_ratio
        views = views_of(self.augmentation, ratio, self.key, chosen, heights, widths)
        images = np.stack(
            [
                shown(pixels, views.crops[i], bool(views.flips[i]), views.colors[i], self.image_size)
                for i, pixels in enumerate(stored)
            ]
        )
        return to_batch(images, self.form), torch.from_numpy(self.images.labels[chosen])


class TorchBatches(Batches):
    """A `BatchLoader` over one split of any list of images.

    Args:
        images: What is shown.
        batch_size: Images per batch on this rank.
        form: Normalisation and layout of a batch.
        augmentation: None shows the central crop.
        workers: Processes that read images; with 1 it is done in this process.
        schedule: What depends on the epoch.
        longest: Longest side of an image in pixels, see EpochImages; None keeps all sizes.
    """

    def __init__(
        self,
        images: ImageList,
        batch_size: int,
        form: BatchFormat,
        augmentation: Augmentation | None,
        workers: int,
        schedule: Schedule,
        longest: int | None = None,
    ):
        super().__init__(schedule, batch_size)
        require_opencv()
        self._pin = form.pin_memory
        # Processes can't share page-locked memory: DataLoader pins what arrives here.
        self._template = EpochImages(images, replace(form, pin_memory=False), augmentation, 0, 0, longest)
        self._workers = workers if workers > 1 else 0

    def _draw(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        order = self._schedule.order(epoch).tolist()
        size = self._batch_size
        batches = [order[start : start + size] for start in range(start_batch * size, len(order), size)]
        images = replace(
            self._template, key=self._schedule.key(epoch), image_size=self._schedule.image_size(epoch)
        )
        loader = DataLoader(
            images,
            batch_sampler=batches,
            num_workers=self._workers,
            collate_fn=_unchanged,
            pin_memory=self._pin,
            generator=torch.Generator(),  # not that of dropout, or a resumed epoch differs
        )
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            yield batch


def _unchanged(batch: Any) -> Any:
    return batch
