"""The folder a trial's process works in: the trial's own, or a copy here of what lies in a bucket."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainable.atomic import StorageError
from trainable.scratch import scratch
from trainable.working_folder import WorkingFolder


@contextlib.contextmanager
def working_folder(trial: dict[str, Any], *, writes: bool = True) -> Iterator[WorkingFolder]:
    """Where a trial's files are read and written while the block runs.

    Args:
        trial: `folder`, a path all nodes share; or `remote`, the URI of the trial's folder in a bucket, and
            `stoppable` where a command there may ask it to stop.
        writes: Whether this process writes the checkpoints and results; others only read.

    Raises:
        StorageError: the bucket cannot be read or written.
    """
    if "remote" not in trial:
        yield WorkingFolder(Path(trial["folder"]))
        return
    folder = _copy(trial["remote"], writes, trial.get("stoppable", False))
    ended_well = False
    try:
        yield folder
        ended_well = True
    finally:
        try:
            if writes:
                folder.store()  # the log of how it ended
        except StorageError:
            if ended_well:
                raise
        finally:
            folder.discard()


def _copy(uri: str, writes: bool, stoppable: bool) -> Any:
    # pyarrow takes a moment to import, which a folder does not need.
    from trainable.working_copy import WorkingCopy

    return WorkingCopy(uri, writes=writes, stoppable=stoppable)


@contextlib.contextmanager
def files_of(trial: dict[str, Any], names: list[str]) -> Iterator[Path]:
    """A folder that holds these files of a trial, as far as they exist, while the block runs.

    Raises:
        StorageError: the bucket cannot be read.
    """
    if "remote" not in trial:
        yield Path(trial["folder"])
        return
    from trainable.remote import Remote

    with tempfile.TemporaryDirectory(dir=scratch("taken_over")) as folder:
        for name in names:
            Remote(trial["remote"]).download(name, Path(folder) / name)
        yield Path(folder)


def put(uri: str, name: str, content: bytes) -> None:
    """Write one object below `uri`; raises StorageError."""
    from trainable.remote import Remote

    Remote(uri).write(name, content)
