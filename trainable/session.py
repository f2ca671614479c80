"""Session: all that the training loop knows of the world that called it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor


class Interrupted(Exception):
    """The run was asked to stop and did: a checkpoint of the last step is on disk, the same call resumes."""


class Session(Protocol):
    """Who runs the loop: one process alone, a trial of a search, or one of several workers."""

    rank: int
    """Index of this worker, from 0. Worker 0 writes the files."""

    world_size: int
    """Number of workers that train together."""

    device: torch.device
    """Where this worker computes."""

    threads: int
    """CPU threads this worker may use."""

    folder: Path
    """Folder of the run: checkpoints, weights, metrics. All workers see the same."""

    pausable: bool
    """Whether the run may be put aside at a report, to go on later, maybe in another run: its checkpoint
    is then on the disk before it reports."""

    def sum(self, values: Tensor) -> Tensor:
        """Sum `values` over the workers, in place, and return them."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Return every worker's `value` (plain data), by rank."""
        ...

    def stop_requested(self) -> bool:
        """Whether this worker was asked to stop soon (a signal, a time limit). Asked after every step, so
        it must be cheap; the loop agrees with the other workers itself."""
        ...

    def checkpoint_written(self) -> None:
        """A checkpoint is in the folder; called beside training, by the thread that wrote it."""
        ...

    def report(self, metrics: dict[str, Any]) -> None:
        """Hand one epoch's metrics to whoever listens. A scheduler may stop the run here for good:
        whatever must survive is written before."""
        ...


class LocalSession:
    """A session of one process with nobody else: for tests, and to replay a failed trial alone.

    Args:
        folder: Folder of the run.
        threads: CPU threads to use.
        device: Where to compute; left out: the first GPU, or the CPU.
    """

    rank = 0
    world_size = 1
    pausable = False

    def __init__(self, folder: Path, threads: int = 1, device: torch.device | None = None) -> None:
        self.folder = folder
        self.threads = threads
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.reports: list[dict[str, Any]] = []

    def sum(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def gather(self, value: Any) -> list[Any]:
        """The one value."""
        return [value]

    def stop_requested(self) -> bool:
        """Nobody asks."""
        return False

    def checkpoint_written(self) -> None:
        """It is where it belongs."""

    def report(self, metrics: dict[str, Any]) -> None:
        """Keep the metrics in `reports`."""
        self.reports.append(metrics)
