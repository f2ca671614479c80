"""Lines for a command's user."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO


def say(line: str, stream: TextIO | None = None) -> None:
    """Print a line at once, to stdout unless told; a terminal or pipe that is gone is no reason to fail.

    A scheduler's signal also ends the `tee` that reads from a command.
    """
    stream = stream or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except OSError:
        with contextlib.suppress(OSError):  # or the interpreter tries again at its end, and exits with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
