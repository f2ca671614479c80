"""A search in an S3 bucket: its journal, its lock, and a working copy of its results on this machine.

In the bucket it looks as in a folder, but for `journal/`, the journal in segments, and `.lease`, the lock.
Nothing else has to survive on this machine: a search that was killed here goes on anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage

from search.journal import JOURNAL_FILE, replayed
from search.place import Place
from search.remote_journal import JOURNAL_FOLDER, RemoteJournal, fetch_journal
from search.spec import SPEC_FILE
from trainable.atomic import StorageError
from trainable.errors import ConfigError
from trainable.lease import LEASE_FILE, Held, Lease
from trainable.mirror import Mirror
from trainable.remote import HASTY, Remote
from trainable.scratch import scratch

_SMALL = ("result.json", "params.json", "log.txt")
"""What is read of a trial here."""

_NOT_RESULTS = ("ray/", "confirmed/")
_TRIAL = re.compile(r"(?:confirmed/)?trial_\d+/(.*)")
_FEW = 3


class Bucket(Place):
    """A search whose every step is in a bucket.

    Args:
        remote: The search's folder in the bucket.
        folder: Its working copy on this machine.
        lease: The lock, where a search around this one has taken it.
    """

    def __init__(self, remote: Remote, folder: Path, lease: Lease | None = None) -> None:
        super().__init__(folder)
        self.remote = remote
        self._lease = lease or Lease(remote)
        self._mirror = Mirror(folder, remote, self._check)
        self._journal: RemoteJournal | None = None

    @classmethod
    def at(cls, storage: str, name: str) -> Bucket:
        """The search `name` below `storage`, once the bucket has answered; raises ConfigError."""
        remote = Remote(storage).child(name)
        remote.trying(HASTY).check()
        # Searches of one name in two folders, such as the one that warm_start names, share no working copy.
        address = hashlib.sha256(remote.uri.encode()).hexdigest()[:12]
        return cls(remote, scratch(f"{address}/{name}"))

    def __str__(self) -> str:
        return str(self.remote)

    def _check(self) -> None:
        if self._lease.held:  # `--report` writes its files beside a running search
            self._lease.check()

    def address(self, name: str = "") -> str:
        """A file of the search, or its folder, as it is named in a command."""
        return f"{self.remote}/{name}".rstrip("/")

    def child(self, name: str) -> Place:
        """A search in the search's folder, under the same lock."""
        return Bucket(self.remote.child(name), self.folder / name, self._lease)

    def exists(self) -> bool:
        """Whether a search was begun here."""
        return bool(self.remote.entries(JOURNAL_FOLDER))

    @contextlib.contextmanager
    def claimed(self, say: Callable[[str], None], *, fresh: bool = False) -> Iterator[None]:
        """Own the search within the block, with a working copy of it; raises ConfigError, StorageError."""
        with self._owned(say):
            if fresh:
                self._clear()
            self.read()
            try:
                yield
            except Exception as error:
                if self._journal is not None and self._journal.failed is not None:
                    raise self._journal.failed from error  # Ray Tune makes a traceback of it
                raise
            self.push()

    def _clear(self) -> None:
        """Delete all but the lease, which stays taken."""
        names = [name for name in self.remote.entries() if name != LEASE_FILE]
        # A journal in segments has another name than the one in a file.
        tops = {name.partition("/")[0] for name in names}
        self._check_deletable({JOURNAL_FILE if top == JOURNAL_FOLDER else top for top in tops})
        # Without its journal a search does not exist: a kill half-way leaves nothing to go on from. With its
        # spec it can be deleted still.
        journal = [name for name in names if name.startswith(f"{JOURNAL_FOLDER}/")]
        self.remote.delete_all(journal)
        self.remote.delete_all(name for name in names if name not in journal and name != SPEC_FILE)
        self.remote.delete_all(name for name in names if name == SPEC_FILE)

    @contextlib.contextmanager
    def _owned(self, say: Callable[[str], None]) -> Iterator[None]:
        if self._lease.held:
            yield
            return
        try:
            self._lease.acquire(say)
        except Held as held:
            raise ConfigError([f"{self}: another process is searching here: {held}"]) from None
        except StorageError as error:
            raise ConfigError([str(error)]) from None
        try:
            yield
        finally:
            self._lease.release()

    def is_running(self) -> bool:
        """Whether a process searches here, by its lease."""
        return self._lease.is_running()

    def journal(self) -> BaseStorage:
        """The journal: for its owner to write; for others a copy, on which nothing depends."""
        if not self._lease.held:
            return super().journal()
        self._journal = RemoteJournal(self.folder / JOURNAL_FILE, self.remote, self._lease.check)
        return replayed(self._journal)

    def read(self) -> None:
        """Fetch the journals, this search's and that of its confirmation, and what is small."""
        entries = self.remote.entries()
        marker = f"{JOURNAL_FOLDER}/"
        for folder in {name.partition(marker)[0] for name in entries if f"/{marker}" in f"/{name}"}:
            fetch_journal(self.remote, folder, self.folder / folder / JOURNAL_FILE)
        self.fetch()

    def fetch(self, under: str = "") -> None:
        """Bring what is small in `folder` (or in a folder of it) up to date."""
        self._mirror.pull(_is_small, under)

    def fetch_file(self, name: str) -> None:
        """Bring one file of `folder` up to date, whatever its size."""
        if not self.remote.download(name, self.folder / name):
            (self.folder / name).unlink(missing_ok=True)

    def push(self) -> None:
        """Bring the result files into the bucket; a trial's own files its process brings there."""
        self._mirror.push(_is_result)

    def delete(self, names: Iterable[str]) -> None:
        """Delete files and folders of the search, those that are there; what fails is for the next time."""
        names = set(names)
        super().delete(names)
        with contextlib.suppress(StorageError):
            self._check()
            self._delete(names)

    def _delete(self, names: set[str]) -> None:
        around = {name.rpartition("/")[0] for name in names}
        if len(around) > _FEW:
            around = {""}  # everything at once: 1000 objects to a request
        there = [name for folder in around for name in self.remote.entries(folder)]
        folders = tuple(f"{name}/" for name in names)
        doomed = [name for name in there if name in names or name.startswith(folders)]
        # A checkpoint without a seal does not exist: seals go first.
        self.remote.delete_all(name for name in doomed if name.endswith(".json"))
        self.remote.delete_all(name for name in doomed if not name.endswith(".json"))

    def trial(self, name: str) -> dict[str, Any]:
        """The address of a trial's folder in the bucket."""
        return {"remote": self.remote.child(name).uri}


def _is_small(name: str) -> bool:
    if within := _TRIAL.fullmatch(name):
        return within[1] in _SMALL
    return not name.endswith(".weights") and JOURNAL_FOLDER not in name.split("/")


def _is_result(name: str) -> bool:
    if within := _TRIAL.fullmatch(name):
        return within[1] == "params.json"
    return name != JOURNAL_FILE and not name.startswith(_NOT_RESULTS)
