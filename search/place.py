"""Where a search lies, and how it is locked, read and written there: a folder, or see search/bucket.py."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path
from typing import Any

import filelock
from optuna.storages import BaseStorage

from search.journal import JOURNAL_FILE, mend, open_journal
from search.spec import SPEC_FILE
from trainable.errors import ConfigError
from trainable.lease import LEASE_FILE

LOCK_FILE = ".lock"


class Place:
    """A folder on a disk that all nodes share.

    A search in a bucket has a working copy of it in `folder`: its methods say when the two must agree, and
    all that reads and writes results does so in `folder`. Here there is but one folder, and nothing to do.

    Args:
        folder: The search's folder; its name is the search's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def address(self, name: str = "") -> str:
        """A file of the search, or its folder, as a command names it: from here, where that is shorter."""
        path = self.folder / name
        return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

    def child(self, name: str) -> Place:
        """A search in the search's folder."""
        return Place(self.folder / name)

    def exists(self) -> bool:
        """Whether a search was begun here; raises ConfigError where that can't be looked up."""
        with self._usable():
            return (self.folder / JOURNAL_FILE).exists()

    @contextlib.contextmanager
    def claimed(self, say: Callable[[str], None], *, fresh: bool = False) -> Iterator[None]:
        """Own the search within the block; what a killed owner left half-written is mended.

        Args:
            say: Told where this takes a while.
            fresh: Delete all of it first, as its owner: never under another process that searches here.

        Raises:
            ConfigError: another process is searching here, the folder cannot be made or written, or it holds
                something else than the search that is to be deleted.
        """
        with self._usable():
            if fresh and self.folder.exists():
                self._check_deletable({path.name for path in self.folder.iterdir()})
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / LOCK_FILE)
            try:
                lock.acquire(blocking=False)  # the operating system frees it when the process dies
            except filelock.Timeout:
                raise ConfigError([f"{self}: another process is searching here"]) from None
        with lock:
            with self._usable():
                if fresh:
                    self._clear()
                mend(self.folder)
            yield

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """What the operating system says of a folder that is none, is read-only, ..., as one line."""
        try:
            yield
        except OSError as error:
            path = f"{error.filename}: " if error.filename not in (None, str(self.folder)) else ""
            raise ConfigError([f"{self}: cannot hold a search: {path}{error.strerror or error}"]) from None

    def _check_deletable(self, names: Set[str]) -> None:
        """Refuse to empty a folder that was never a search's, whatever a wrong --name or --storage says."""
        own = (LOCK_FILE, LEASE_FILE, f".{SPEC_FILE}.")  # and what a kill leaves of writing the first file
        if any(not name.startswith(own) for name in names) and not names & {JOURNAL_FILE, SPEC_FILE}:
            raise ConfigError(
                [f"{self}: holds no search, but other files, which --fresh leaves alone; give another --name"]
            )

    def _clear(self) -> None:
        """Delete all but the lock, which stays taken."""
        # Without its journal a search does not exist: a kill half-way leaves nothing to go on from. With its
        # spec it can be deleted still.
        order = {JOURNAL_FILE: 0, SPEC_FILE: 2}
        for path in sorted(self.folder.iterdir(), key=lambda path: order.get(path.name, 1)):
            if path.name == LOCK_FILE:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def is_running(self) -> bool:
        """Whether a process searches here: it holds the folder's lock, which dies with it."""
        path = self.folder / LOCK_FILE
        if not path.exists():
            return False
        lock = filelock.FileLock(path)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            return True
        lock.release()
        return False

    def journal(self) -> BaseStorage:
        """The search's journal as an Optuna storage; made if missing."""
        return open_journal(self.folder)

    def read(self) -> None:
        """Bring `folder` up to date to look at the search without owning it."""

    def fetch(self, under: str = "") -> None:
        """Bring what is small in `folder` (or in a folder of it) up to date."""

    def fetch_file(self, name: str) -> None:
        """Bring one file of `folder` up to date, whatever its size."""

    def push(self) -> None:
        """Bring the result files in `folder` into storage."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete files and folders of the search, those that are there."""
        for name in names:
            path = self.folder / name
            # A trial that was just stopped may still be writing its last checkpoint there: what then stays
            # goes when the search tidies up at its end.
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(IsADirectoryError):
                path.unlink(missing_ok=True)

    def trial(self, name: str) -> dict[str, Any]:
        """What a trial's process is told about its folder; see trainable/working.py."""
        return {"folder": str(self.folder / name)}
