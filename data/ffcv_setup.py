"""Import ffcv without its side effects, and say what to do where it is missing."""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Any

from data.info import DataError

_lock = threading.Lock()


def require_ffcv() -> None:
    """Import ffcv; call before any `import ffcv`.

    Two things happen on a plain import that nobody asked for:

    - `Compiler.set_num_threads(1)` also sets torch's number of threads, so that a CPU training run would go
      on with one thread. It is put back.
    - `ffcv.fields.rgb_image` makes a numba typed dictionary of two entries that only Python code reads.
      Compiling it takes 5 s of the 5.5 s that the import takes on top of torch; a plain dict serves as well.
    """
    with _lock:
        if sys.modules.get("ffcv.fields.rgb_image"):
            return
        import torch

        threads = torch.get_num_threads()
        try:
            typed: Any = importlib.import_module("numba.typed")
            typed_dict, typed.Dict = typed.Dict, dict
            try:
                importlib.import_module("ffcv")
                importlib.import_module("ffcv.fields.rgb_image")
            finally:
                typed.Dict = typed_dict
        except (ImportError, OSError) as error:
            raise DataError(
                f"data sets are read through ffcv, which cannot be imported here ({error}); "
                "apt-get install -y pkg-config g++ libturbojpeg0-dev libopencv-dev, then pip install ffcv; "
                "or set loader: torch"
            ) from error
        finally:
            torch.set_num_threads(threads)
