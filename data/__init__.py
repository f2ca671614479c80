"""Images and labels, in batches: every data set through ffcv, or through torch where ffcv can't be installed.

    info = check_data("digits")                     # cheap, before any compute is spent
    data = open_data("digits", batch_size=128, seed=0)
    for images, labels in data.train.epoch(0):      # (128, 3, 32, 32) float32 normalised, (128,) int64
        ...

Epoch e is a function of (seed, e): the same batches in any process, with any number of threads, split over
any number of workers, and from any batch on. What isn't a .beton file is converted on first use
(`data.converted`), or beforehand with `python -m data.beton`. Pascal VOC, for the analysis, is in `data.voc`.
ffcv itself is imported when a data set is first checked, not with this package.
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
