"""A search's journal in a bucket: segments of whole lines, the last of which grows.

There is no append in S3. Each step rewrites the last segment with one line more; once it is large the next
one begins. An object appears whole or not at all, so no line is ever torn, and a kill loses no step that had
been taken.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from search.journal import JournalFile
from trainable import atomic
from trainable.atomic import StorageError, storage_error
from trainable.lease import LeaseLost
from trainable.remote import ONCE, Remote

JOURNAL_FOLDER = "journal"
SEGMENT_BYTES = 64 * 1024

_PATIENCE = 60.0  # seconds
_PAUSE = 0.5


class RemoteJournal(JournalFile):
    """An Optuna journal whose steps are in the bucket before they count; one process writes.

    A copy in a local file serves all reads: only the writer, who has made every line of it, asks it.

    Args:
        file: The copy, as `fetch_journal` left it.
        remote: The search's folder in the bucket.
        check: Called before each write; raises where this process must not.
        segment_bytes: From which size on a segment is full.
    """

    def __init__(
        self,
        file: Path,
        remote: Remote,
        check: Callable[[], None] = lambda: None,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(file)
        self._file, self._remote = file, remote.trying(ONCE)
        self._check, self._full = check, segment_bytes
        self.failed: StorageError | None = None
        self._number, self._segment = 0, b""
        names = _segments(remote, "")
        if names:
            last = remote.read(names[-1]) or b""
            self._number, self._segment = len(names) - 1, last
            self._roll()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append; in the bucket when this returns.

        Raises:
            StorageError: the bucket can't be written, or is another process' by now. So does every call after
                it: what this process knows may then no longer be what is stored.
        """
        if self.failed is not None:
            raise self.failed
        lines = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
        try:
            self._write(self._segment + lines)
            with self._file.open("ab") as copy:
                copy.write(lines)
        except OSError as error:
            self.failed = error if isinstance(error, StorageError) else storage_error(self._file, error)
            raise self.failed from error
        self._segment += lines
        self._roll()

    def _write(self, segment: bytes) -> None:
        """Write the last segment; a server that is away is waited for, as long as the search is ours.

        One attempt at a time: one that goes on by itself could still arrive when the search is another's.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._check()
                self._remote.write(_name(self._number), segment)
                return
            except LeaseLost:
                raise
            except StorageError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)

    def _roll(self) -> None:
        if len(self._segment) >= self._full:
            self._number, self._segment = self._number + 1, b""


def fetch_journal(remote: Remote, folder: str, file: Path) -> None:
    """Make `file` the journal of the search in `folder` below `remote`.

    Raises:
        StorageError: it can't be read, or a segment is missing.
    """
    names = _segments(remote, folder)
    contents = remote.read_all(names)
    for name, content in zip(names, contents, strict=True):
        if content is None:
            raise StorageError(f"{remote}/{name}: is missing: the search's journal has a gap")
    atomic.write_bytes(file, b"".join(content for content in contents if content is not None))


def _segments(remote: Remote, folder: str) -> list[str]:
    """Names of the segments there must be, in their order."""
    prefix = f"{folder}{JOURNAL_FOLDER}/"
    numbers = [int(Path(name).stem) for name in remote.entries(prefix.rstrip("/"))]
    return [f"{folder}{_name(number)}" for number in range(max(numbers, default=-1) + 1)]


def _name(number: int) -> str:
    return f"{JOURNAL_FOLDER}/{number:06d}.log"
