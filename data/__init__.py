"""Images and labels, in batches, from .beton files through ffcv.

    info = check_data("digits")                     # cheap, before any compute is spent
    data = open_data("digits", batch_size=128, seed=0)
    for images, labels in data.train.epoch(0):      # (128, 3, 32, 32) float32 normalised, (128,) int64
        ...

Epoch e is a function of (seed, e): the same batches in any process, with any number of threads, and split
over any number of workers. ffcv itself is imported when a data set is first checked, not with this package.
"""

from data.info import BatchLoader, Data, DataError, DataInfo, Preprocessing
from data.options import LoadingOptions
from data.registry import DATASETS, DatasetSpec, check_data, open_data

__all__ = [
    "DATASETS",
    "BatchLoader",
    "Data",
    "DataError",
    "DataInfo",
    "DatasetSpec",
    "LoadingOptions",
    "Preprocessing",
    "check_data",
    "open_data",
]
