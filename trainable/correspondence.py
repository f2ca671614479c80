"""A worker of a run in a bucket and its command: progress goes one way, the wish to stop the other."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from trainable.progress import PROGRESS_FILE
from trainable.remote import HASTY, Remote
from trainable.signals import STOP_FILE

SECONDS = 3.0
"""Between two exchanges: two small requests each, little against a step and against a time limit."""


class Correspondence:
    """Carries the two files between the worker's folder and the bucket, beside training.

    Args:
        remote: The run's folder in the bucket.
        folder: The worker's copy of it.
        tells: Whether this worker is the one that says how far the run is.
    """

    def __init__(self, remote: Remote, folder: Path, *, tells: bool) -> None:
        self._remote, self._folder, self._tells = remote.trying(HASTY), folder, tells
        self._told = b""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="correspondence", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._closed.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._closed.wait(SECONDS):
            with contextlib.suppress(OSError):  # nothing that a run should fail for; the next may arrive
                self._exchange()

    def _exchange(self) -> None:
        if not (self._folder / STOP_FILE).exists() and self._remote.entry(STOP_FILE) is not None:
            (self._folder / STOP_FILE).touch()
        file = self._folder / PROGRESS_FILE
        if self._tells and file.exists() and (news := file.read_bytes()) != self._told:
            self._remote.write(PROGRESS_FILE, news)
            self._told = news
