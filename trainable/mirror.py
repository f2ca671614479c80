"""A local folder and its mirror in a bucket: pulled before work, pushed whenever something is done."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainable.atomic import StorageError
from trainable.remote import Entry, Remote

CLAIM_FILE = ".claim"

_AT_ONCE = 8
# What vouches for another file comes after it: a checkpoint's seal, and the weights after what they are.
_ORDER = {".pt": 0, ".json": 1, ".weights": 2}

Choice = Callable[[str], bool]
"""Says of a name, relative to the folder, whether it is meant."""


class Mirror:
    """Keeps `remote` what `folder` is; files whose name begins with a dot stay where they are.

    Two threads may push at the same time, as long as they push different files.

    Args:
        folder: The local folder.
        remote: Its mirror.
        guard: Called before anything is changed there; raises where this process must not.
    """

    def __init__(self, folder: Path, remote: Remote, guard: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self.remote = remote
        self._guard = guard
        self._here: dict[str, tuple[int, int]] = {}  # local size and time of what is the same on both sides
        self._there: dict[str, Entry] = {}  # and the object it was pulled from

    def pull(self, chosen: Choice, under: str = "") -> None:
        """Fetch the chosen files that are new or changed there. Files gone there stay here."""
        entries = self.remote.entries(under)
        changed = {
            name: entry
            for name, entry in entries.items()
            if not _hidden(name) and chosen(name) and self._there.get(name) != entry
        }

        def fetch(name: str) -> bool:
            return self.remote.download(name, self.folder / name)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for (name, entry), done in zip(changed.items(), pool.map(fetch, changed), strict=True):
                if done:
                    os.utime(self.folder / name, (entry.changed, entry.changed))
                    self._there[name] = entry
                    self._here[name] = _signature(self.folder / name)

    def push(self, chosen: Choice) -> None:
        """Bring the chosen files there: what changed here is written, what was deleted here is deleted.

        At every instant what is there is what a kill could have left here: a checkpoint before its seal, no
        seal beside another checkpoint than its own, and nothing deleted before its successor is there.

        Raises:
            StorageError: the bucket cannot be written, or the guard objects.
        """
        local = {name: _signature(self.folder / name) for name in self._names() if chosen(name)}
        changed = [name for name in local if self._here.get(name) != local[name]]
        gone = [name for name in list(self._here) if chosen(name) and name not in local]
        if not (changed or gone):
            return
        self._guard()
        for name in sorted(changed, key=_place):
            seal = f"{name.removesuffix('.pt')}.json"
            if name.endswith(".pt") and seal in self._here:
                self._delete(seal)
            if name.endswith(".json"):
                self._guard()  # an upload may take minutes
            try:
                self.remote.upload(name, self.folder / name)
            except FileNotFoundError:  # deleted since it was listed
                continue
            self._here[name] = local[name]
        for name in sorted(gone, key=_place, reverse=True):
            self._delete(name)

    def _delete(self, name: str) -> None:
        self.remote.delete(name)
        self._here.pop(name, None)
        self._there.pop(name, None)

    def _names(self) -> list[str]:
        paths = (path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        return [name for path in paths if not _hidden(name := path.as_posix())]


class Claim:
    """Says whose a folder in a bucket is: whoever claimed it last.

    A process that its search has given up for dead may still be there, on this machine or another. It finds
    another's claim before it writes again, and stops. (What it is just then sending still arrives: the same
    files as its successor's, whose seals tell which are whole.)
    """

    def __init__(self, remote: Remote) -> None:
        """Args: remote: The folder; it is claimed at once."""
        self._remote = remote
        self._token = uuid.uuid4().hex.encode()
        remote.write(CLAIM_FILE, self._token)

    def check(self) -> None:
        """Raise StorageError where another process has claimed the folder since."""
        if self._remote.read(CLAIM_FILE) != self._token:
            raise StorageError(f"{self._remote}: another process has taken this run up")


def _hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name


def _signature(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _place(name: str) -> int:
    return _ORDER.get(Path(name).suffix, 1)
