"""A folder that a trial's process works in, where it is the trial's own; see working_copy.py for buckets."""

from __future__ import annotations

from pathlib import Path


class WorkingFolder:
    """A folder that all nodes share: what is written there is in storage."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def store(self) -> None:
        """Return when everything but checkpoints is in storage; raises StorageError."""

    def store_checkpoints(self) -> None:
        """Return when the checkpoints are in storage; raises StorageError."""
