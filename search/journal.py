"""The file every step of a search is appended to before it takes effect; a kill's traces in it are mended."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from trainable.atomic import StorageError
from trainable.errors import ConfigError

JOURNAL_FILE = "journal.log"


class JournalFile(JournalFileBackend):
    """Optuna's journal in a file, which says where it is damaged.

    A last line that is torn is left out, as Optuna does: whoever owns the search mends it, and others look.

    Args:
        path: The file; made if missing.
    """

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(str(path))
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from None
        self.path = path
        self.lines = 0
        """Lines read so far."""

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The steps from line `log_number_from` on, counted from 0.

        Raises:
            ConfigError: a line is no JSON, and not the last one.
        """
        self.lines = log_number_from
        try:
            for log in super().read_logs(log_number_from):
                self.lines += 1
                yield log
        except (ValueError, RecursionError):
            # Optuna lets a last line pass that is text; zeros, which a power loss leaves behind, are none.
            if not self._is_last(self.lines + 1):
                raise self.damaged(self.lines + 1) from None

    def _is_last(self, line: int) -> bool:
        with self.path.open("rb") as file:
            return sum(1 for _ in file) <= line

    def damaged(self, line: int) -> ConfigError:
        """What to say of a line, counted from 1."""
        return ConfigError(
            [f"{self.path}: line {line} is not one of a search's journal: remove it, or give --fresh"]
        )


def open_journal(folder: Path) -> JournalStorage:
    """The journal in `folder` as an Optuna storage; made if missing.

    Each step is one line, appended and flushed to the disk (fsync) before the call returns: 0.3 ms, where
    SQLite takes 2 to 3. The lock is a symbolic link, which works over NFS; SQLite's does not.

    Raises:
        ConfigError: the file is damaged.
        StorageError: the file cannot be read.
    """
    return replayed(JournalFile(folder / JOURNAL_FILE))


def replayed(file: JournalFile) -> JournalStorage:
    """The storage that a journal's lines lead to.

    Raises:
        ConfigError: one of them is no step of a search, or damaged.
        StorageError: they cannot be read.
    """
    try:
        return JournalStorage(file)
    except (ConfigError, StorageError):
        raise
    except OSError as error:
        raise StorageError(f"{file.path}: cannot be read: {error.strerror or error}") from None
    except Exception:  # a line from elsewhere can be wrong in any way
        raise file.damaged(file.lines) from None


def mend(folder: Path) -> None:
    """Cut off a line that a kill or a power loss left torn, and remove the lock of a killed writer.

    Only for the process that holds the search's own lock: nobody else may be writing.
    """
    path = folder / JOURNAL_FILE
    for leftover in (path.with_name(path.name + ".lock"), *folder.glob(path.name + ".lock*.rename")):
        leftover.unlink(missing_ok=True)
    if not path.exists():
        return
    with path.open("rb+") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 20)))
        tail = file.read()
        whole = _without_blank_lines(tail[: tail.rfind(b"\n") + 1])
        last = whole.rstrip(b"\n").rpartition(b"\n")[2]
        if last and not _is_json(last):  # a file system that lost power may leave zeros behind
            whole = _without_blank_lines(whole[: len(whole) - len(last) - 1])
        if len(whole) < len(tail):
            file.truncate(size - len(tail) + len(whole))


def _without_blank_lines(lines: bytes) -> bytes:
    """Whole lines without the blank ones at their end, which would damage what is appended to them."""
    kept = lines.rstrip(b"\n")
    return lines[: len(kept) + 1] if kept else b""


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
