"""Why a run failed, as one line for its user; the traceback goes to a file."""

from __future__ import annotations

import contextlib
import errno
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from trainable.atomic import StorageError

ERROR_FILE = "error.log"

_STORAGE_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ESTALE,
    errno.EFBIG,
    errno.ENOTCONN,
}
_STORAGE_WORDS = re.compile(
    r"(No space left on device|Disk quota exceeded|Read-only file system|File too large)"
)


def explain(error: BaseException, folder: Path, address: str | None = None) -> str:
    """One line that says what went wrong; the whole traceback is written to `folder`, where it can be.

    Args:
        error: What was raised.
        folder: The run's, on this machine.
        address: What people know that folder as; None is its path.
    """
    place = address or str(folder)
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, StorageError):
            return f"{cause}; {_advice(place)}"
    for cause in chain:
        if isinstance(cause, OSError) and cause.errno in _STORAGE_ERRNOS:
            return f"{cause.filename or place}: cannot be written: {cause.strerror}; {_advice(place)}"
    words = _STORAGE_WORDS.search(str(error))
    if words:  # Ray hands on some errors as text only
        return f"{place}: cannot be written: {words[1]}; {_advice(place)}"
    root = chain[-1]
    with contextlib.suppress(OSError):
        told = [line for cause in (error, root) for line in traceback.format_exception(cause)]
        (folder / ERROR_FILE).write_text("".join(told))
    lines = [line.strip() for line in str(root).splitlines() if line.strip()] or [type(root).__name__]
    # Where only text is left of an error, its last line is what was raised.
    shown = lines[-1] if any("Traceback" in line for line in lines) else f"{type(root).__name__}: {lines[0]}"
    return f"{place}: training failed: {shown} (details: {place}/{ERROR_FILE})"


def _advice(place: str) -> str:
    return f"the last checkpoint in {place} is intact, and the same command goes on from it"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what is behind it, the root last; Ray wraps what a worker raised two or three times."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        current = todo.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        behind = [
            current.__cause__,
            getattr(current, "cause", None),  # ray.exceptions.RayTaskError
            getattr(current, "controller_failure", None),  # ray.train.ControllerError
            getattr(current, "_base_exc", None),  # what user code raised, inside a worker
            *(getattr(current, "worker_failures", None) or {}).values(),  # ray.train.WorkerGroupError
        ]
        todo += [cause for cause in behind if isinstance(cause, BaseException)]
