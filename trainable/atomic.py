"""Files that appear whole or not at all, whenever the writing process is killed."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class StorageError(OSError):
    """A folder or file cannot be written or read: disk full, storage gone, no permission. One line."""


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write into that becomes `path` when the block ends: written aside, fsynced, renamed.

    A reader sees the old file or the new one, never a part; after an error nothing is left behind.

    Raises:
        StorageError: the file cannot be written.
    """
    path = Path(path)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise storage_error(path, error) from error
        raise


def storage_error(path: Path, error: OSError) -> StorageError:
    """One line that names the file and what is wrong with it."""
    return StorageError(f"{path}: cannot be written: {error.strerror or error}")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Make `content` the file `path`; see `writing`."""
    with writing(path) as file:
        file.write(content)


def write_text(path: str | Path, content: str) -> None:
    """Like write_bytes, for UTF-8 text."""
    write_bytes(path, content.encode())


def write_json(path: str | Path, content: Any) -> None:
    """Like write_bytes, for JSON that people also read."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append one line and bring it to the disk; raises StorageError. A kill can tear only the last line."""
    try:
        with path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise storage_error(path, error) from error


def _umask() -> int:
    # mkstemp makes files only their owner can read; results are for the whole group. There is no call
    # that reads the mask without setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    # The rename itself must reach the disk too.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
