"""A lock in a bucket: an object that its holder renews every few seconds, and that ends when it does not."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainable.atomic import StorageError
from trainable.remote import ONCE, Remote

LEASE_FILE = ".lease"


class LeaseLost(StorageError):
    """Another process has taken the lease: whatever this one still has to write would destroy its work."""


class Held(Exception):
    """Another process holds the lease; the message says which."""


@dataclass(frozen=True)
class Terms:
    """How a lease is kept, in seconds."""

    renew: float = 5.0
    """Between two renewals."""

    stale: float = 30.0
    """Without a renewal for so long, it is anybody's. More than Ray's processes outlive their driver."""

    settle: float = 1.0
    """From writing one's name into the lease to reading whether it is still there."""


class Lease:
    """The right to write below `remote`, for one process at a time.

    Clocks of two machines are never compared: whether a lease is renewed is watched, or read from the
    server's own times. What remains are races that only a conditional write, which pyarrow has not, could
    close. Two processes may find a dead lease at the same instant, and one of them take longer than `settle`
    to write its name: both go on until the next renewal of the first, `renew` seconds at most, which finds
    the other's name and stops. And a process suspended for `stale` seconds between `check` and the write it
    was for still does that one write.
    """

    def __init__(self, remote: Remote, terms: Terms | None = None) -> None:
        """Args: remote: What it is for; terms: times, shorter ones for tests."""
        self._remote = remote.trying(ONCE)
        self._terms = terms or Terms()
        self._owner = uuid.uuid4().hex
        self._beat = 0
        self._renewed = 0.0
        self._lost: str | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def held(self) -> bool:
        """Whether this process has it."""
        return self._thread is not None

    def acquire(self, say: Callable[[str], None]) -> None:
        """Take the lease; waits where nobody can tell yet whether its holder still lives.

        Args:
            say: Told whom this waits for.

        Raises:
            Held: somebody renews it, or was faster.
            StorageError: the bucket cannot be written.
        """
        found = self._read()
        if found is not None and not (_died_here(found) or self._is_stale()):
            wait = f"waiting up to {self._terms.stale:.0f} s to see whether it still runs"
            say(f"{self._remote}: {_who(found)} was at work here; {wait}")
            self._watch(found)
        self._write()
        time.sleep(self._terms.settle)
        found = self._read()
        if found is None or found["owner"] != self._owner:
            raise Held(_who(found))
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def _watch(self, found: dict[str, Any]) -> None:
        deadline = time.monotonic() + self._terms.stale
        while time.monotonic() < deadline:
            time.sleep(self._terms.renew / 5)
            now = self._read()
            if now is None:
                return
            if now != found:
                raise Held(_who(now))

    def check(self) -> None:
        """Return where this process may begin a write that is done within a third of `stale` seconds.

        Raises:
            LeaseLost: it never may again.
            StorageError: it can't be told now, because the bucket does not answer.
        """
        with self._lock:
            if self._lost is None and time.monotonic() - self._renewed > self._terms.stale / 3:
                self._renew()  # suspended, or the network was away: is it still ours?
            if self._lost is not None:
                raise LeaseLost(
                    f"{self._remote}: taken over by {self._lost}; this process has stopped writing"
                )

    def release(self) -> None:
        """Give the lease up."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with contextlib.suppress(StorageError):  # then it goes stale
            found = self._read()
            if found is not None and found["owner"] == self._owner:
                self._remote.delete(LEASE_FILE)

    def is_running(self) -> bool:
        """Whether somebody holds it, as far as can be told without waiting or writing."""
        found = self._read()
        if found is None or _died_here(found):
            return False
        entry = self._remote.entry(LEASE_FILE)
        # The one place where a clock of this machine meets the server's: for display only.
        return entry is not None and time.time() - entry.changed < self._terms.stale

    def _keep(self) -> None:
        while not self._stop.wait(self._terms.renew) and self._lost is None:
            with self._lock, contextlib.suppress(StorageError):  # tried again; `check` knows how long ago
                self._renew()

    def _renew(self) -> None:
        found = self._read()
        if found is None or found["owner"] != self._owner:
            self._lost = _who(found)
        else:
            self._write()

    def _is_stale(self) -> bool:
        """Whether the last renewal is long ago by the server's clock, asked by writing something."""
        probe = f"{LEASE_FILE}-{self._owner}"
        self._remote.write(probe, b"")
        there, now = self._remote.entry(LEASE_FILE), self._remote.entry(probe)
        self._remote.delete(probe)
        return there is None or (now is not None and now.changed - there.changed > self._terms.stale)

    def _read(self) -> dict[str, Any] | None:
        content = self._remote.read(LEASE_FILE)
        if content is None:
            return None
        found: dict[str, Any] = json.loads(content)
        return found

    def _write(self) -> None:
        self._beat += 1
        began = time.monotonic()
        mine = {
            "owner": self._owner,
            "beat": self._beat,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pids": _pids(),
            "started": _started(os.getpid()),
        }
        self._remote.write(LEASE_FILE, json.dumps(mine).encode())
        self._renewed = began


def _who(lease: dict[str, Any] | None) -> str:
    return f"process {lease['pid']} on {lease['host']}" if lease else "a process that has ended since"


def _died_here(lease: dict[str, Any]) -> bool:
    """Whether the holder was a process of this very machine (or container) and is gone."""
    return lease["pids"] == _pids() and lease["started"] != _started(lease["pid"])


def _pids() -> str:
    """Where a process id means this process: the boot and the namespace."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return uuid.uuid4().hex  # unknown: equal to nothing


def _started(pid: int) -> str | None:
    """When a process started; None where there is none (or it is dead and nobody has asked why)."""
    with contextlib.suppress(OSError):
        # The name in brackets may hold spaces; after it: state, ..., start time (field 22).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    return None
