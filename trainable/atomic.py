"""Files that appear whole or not at all, whenever the writing process is killed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write aside, fsync, rename: a reader sees the old file or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_text(path: str | Path, content: str) -> None:
    """Like write_bytes, for UTF-8 text."""
    write_bytes(path, content.encode())


def write_json(path: str | Path, content: Any) -> None:
    """Like write_bytes, for JSON that people also read."""
    write_text(path, json.dumps(content, indent=2) + "\n")


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
