"""Batches from .beton files through ffcv: its format, reader, graph and prefetching, with our operations.

Where this differs from ffcv's own pipelines:

- Nothing is compiled per loader: the operations call `kernels`, which numba keeps on disk. A new loader takes
  milliseconds instead of 4 to 7 s (ffcv compiles each one anew), the pixels are the same.
- Augmentation is a function of (seed, epoch, image), not of thread timing.
- Batches are fresh memory. ffcv hands out buffers that it overwrites as soon as the next batch is drawn.
- Threads are ours, one pool per process: the C decoder keeps (and never frees) its state per thread, and
  ffcv starts new threads each epoch. ffcv would also set torch's number of threads to the loader's.
- An error while reading reaches the training loop; in ffcv the thread dies and the loop waits forever.

Import after `ffcv_setup.require_ffcv()`.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Full
from typing import Any

import numpy as np
import torch
from ffcv.loader.epoch_iterator import EpochIterator
from ffcv.loader.loader import Loader
from ffcv.pipeline.compiler import Compiler
from ffcv.traversal_order.base import TraversalOrder
from numpy.typing import NDArray
from torch import Tensor

from data.batches import Batch, Batches, Plan, Schedule
from data.operations import EpochState, ImageDecoder, LabelDecoder, Pipeline

CACHED_LOADERS = 6
"""Loaders kept per process: three data sets with two splits. Each holds its file's index in memory."""


class PlannedOrder(TraversalOrder):
    """ffcv's hook for the order of an epoch; the plan may be replaced between epochs."""

    def __init__(self, plan: Plan):
        self.plan = plan

    def __call__(self, loader: Loader) -> PlannedOrder:
        super().__init__(loader)
        return self

    def sample_order(self, epoch: int) -> NDArray[np.int64]:
        return self.plan(epoch)


class Epoch(EpochIterator):
    """A thread that decodes batches ahead of the training loop. It owns everything that changes per epoch."""

    storage_state: tuple[Any, ...]

    def __init__(self, loader: PreparedLoader, indices: NDArray[np.int64], state: EpochState):
        self.state = state
        super().__init__(loader, indices)  # starts the thread

    def run(self) -> None:
        self.storage_state = (*self.storage_state, self.state)
        fields = list(self.loader.pipeline_specs)  # in the file's order
        image, label = fields.index("image"), fields.index("label")
        try:
            for number, indices in enumerate(self.iter_ixes):
                batch = self.run_pipeline(number, indices, 0, None)
                if not self._put((batch[image], batch[label])):
                    return
            self._put(None)
        except Exception as error:
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self.terminate_event.is_set():
            try:
                self.output_queue.put(item, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self.terminate_event.is_set():
            raise StopIteration
        item = self.output_queue.get()
        if isinstance(item, tuple):
            return item
        self.close()
        raise StopIteration if item is None else item

    def close(self) -> None:
        """Stop the thread and wait for it: at most the batch it is at."""
        super().close()
        try:
            while True:
                self.output_queue.get_nowait()
        except Empty:
            pass
        if self.is_alive() and threading.current_thread() is not self:
            self.join()


_live_epochs: weakref.WeakSet[Epoch] = weakref.WeakSet()


class PreparedLoader(Loader):
    """An ffcv loader that several users can draw epochs from, each with a seed and a rank of its own."""

    def __init__(self, pipeline: Pipeline):
        self.lock = threading.Lock()
        enabled, torch_threads = Compiler.is_enabled, torch.get_num_threads()
        Compiler.set_enabled(False)  # the operations are compiled already
        try:
            super().__init__(
                pipeline.path,
                batch_size=pipeline.batch_size,
                num_workers=1,
                seed=0,
                os_cache=True,
                order=PlannedOrder(lambda epoch: np.empty(0, np.int64)),
                drop_last=False,
                pipelines=self._fields(pipeline),
            )
        finally:
            Compiler.set_enabled(enabled)
            torch.set_num_threads(torch_threads)

    @staticmethod
    def _fields(pipeline: Pipeline) -> dict[str, Any]:
        from ffcv.reader import Reader

        others = dict.fromkeys(Reader(pipeline.path).handlers)
        return others | {"image": [ImageDecoder(pipeline)], "label": [LabelDecoder()]}

    def draw(self, plan: Plan, epoch: int, start_batch: int, state: EpochState) -> Epoch:
        """Start an epoch at a batch."""
        with self.lock:
            self.traversal_order.plan = plan
            self.next_epoch = epoch
            indices = self.next_traversal_order()[start_batch * self.batch_size :]
        iterator = Epoch(self, indices, state)
        _live_epochs.add(iterator)
        return iterator


_loaders: OrderedDict[tuple[Any, ...], PreparedLoader] = OrderedDict()
_loaders_lock = threading.Lock()


def prepared_loader(pipeline: Pipeline) -> PreparedLoader:
    """The loader for a pipeline, from the cache unless the file has changed."""
    stat = Path(pipeline.path).stat()
    key = (pipeline, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    with _loaders_lock:
        if key not in _loaders:
            _loaders[key] = PreparedLoader(pipeline)
        _loaders.move_to_end(key)
        while len(_loaders) > CACHED_LOADERS:
            _loaders.popitem(last=False)
        return _loaders[key]


@atexit.register
def close_loaders() -> None:
    """Stop every epoch under way and forget all loaders."""
    for epoch in list(_live_epochs):
        epoch.close()
    with _loaders_lock:
        _loaders.clear()


class FfcvBatches(Batches):
    """A `BatchLoader` over one split of a .beton file."""

    def __init__(self, pipeline: Pipeline, schedule: Schedule):
        super().__init__(schedule, pipeline.batch_size)
        self._loader = prepared_loader(pipeline)

    def _draw(self, epoch: int, start_batch: int) -> Iterator[Batch]:
        state = EpochState(self._schedule.key(epoch), self._schedule.image_size(epoch))
        iterator = self._loader.draw(self._schedule.order, epoch, start_batch, state)
        try:
            yield from iterator
        finally:
            iterator.close()
