"""One checkpoint on disk: `NAME.pt`, and `NAME.json`, the seal that says it is whole.

The seal holds the size and SHA-256 of the file and is written last: a file without a matching seal does not
exist. So the writer may be killed at any instant, and what a disk tore later is noticed.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from pathlib import Path
from typing import IO, Any

import torch

from trainable import atomic

DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError)
"""What reading a damaged checkpoint may raise."""


class _Hashing:
    """A file that hashes what passes through, so that a checkpoint need not be read again."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error  # torch's writer makes a RuntimeError of it that says nothing
            raise
        view = memoryview(data)
        self.sha256.update(view)
        self.bytes += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        self._file.flush()


def write(path: Path, content: dict[str, Any], about: dict[str, Any]) -> None:
    """Write `content` as `path` and seal it.

    Args:
        path: `NAME.pt`; one that is there is replaced.
        content: Tensors on the CPU and plain data.
        about: Plain data for the seal, to be had without reading the checkpoint.

    Raises:
        StorageError: the storage is full, gone or read-only.
    """
    remove_seal(path)  # replacing the file would leave the old seal beside the new file for an instant
    with atomic.writing(path) as file:
        size, digest = dump(content, file)
    seal = {**about, "bytes": size, "sha256": digest}
    atomic.write_json(path.with_suffix(".json"), seal)


def dump(content: Any, file: IO[bytes]) -> tuple[int, str]:
    """torch.save into `file`; returns bytes and SHA-256. Raises OSError where the file cannot be written."""
    hashing = _Hashing(file)
    try:
        torch.save(content, hashing)  # type: ignore[arg-type]  # it needs no more than write and flush
    except RuntimeError:
        if hashing.error is not None:
            raise hashing.error from None
        raise
    return hashing.bytes, hashing.sha256.hexdigest()


def read(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Read and verify `path`; raises one of DAMAGE where it is missing or not what was written."""
    expected = json.loads(path.with_suffix(".json").read_text())
    data = path.read_bytes()
    if len(data) != expected["bytes"]:
        raise ValueError(f"{len(data)} bytes instead of {expected['bytes']}")
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise ValueError("its checksum is wrong")
    content: dict[str, Any] = torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)
    return content


def about(path: Path) -> dict[str, Any]:
    """What the seal of `path` says; empty where there is no whole seal."""
    try:
        seal = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError):
        return {}
    return seal if isinstance(seal, dict) else {}


def remove(path: Path) -> None:
    """Forget a checkpoint: the seal first."""
    remove_seal(path)
    path.unlink(missing_ok=True)


def remove_seal(path: Path) -> None:
    """Make `path` a file that does not count."""
    path.with_suffix(".json").unlink(missing_ok=True)
