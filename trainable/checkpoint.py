"""The checkpoints of a run: which there are, which are kept, which one a killed run continues from."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import filelock
import torch
from typing_extensions import Self

from trainable import sealed
from trainable.atomic import StorageError, storage_error
from trainable.background import Background
from trainable.snapshot import snapshot

_NAME = re.compile(r"epoch_(\d+)(?:_step_(\d+))?")
_PATIENCE = 60.0


class Position(NamedTuple):
    """How far a run has come; later positions compare as greater."""

    epoch: int
    """Completed epochs."""

    step: int = 0
    """Optimizer steps done of the epoch after them."""


class CheckpointStore:
    """The checkpoints of one run: `epoch_0005.pt` or `epoch_0005_step_000120.pt`, each with its seal.

    Kept are the newest few and the best. Writing goes on beside training: `save` copies the state and
    returns; `wait` returns when it is on the disk. As a context manager the store keeps other processes
    from writing (a worker can outlive its killed driver by seconds), and waits at the end.
    """

    def __init__(self, folder: Path, keep: int = 2, written: Callable[[], None] = lambda: None) -> None:
        """Make nothing yet.

        Args:
            folder: Where the files lie, made on first save.
            keep: How many newest ones stay.
            written: Called beside training, after each checkpoint, as part of writing it.
        """
        self.folder = folder
        self.keep = keep
        self._written = written
        self._writer = Background("checkpoint-writer")
        self._lock = filelock.FileLock(folder / ".lock")
        self._swept = False
        self.notes: list[str] = []
        """What was damaged, for the user to see."""

    def __enter__(self) -> Self:
        """Become the only writer; raises StorageError where the folder cannot be written or is taken."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=_PATIENCE)  # the operating system frees it when a process dies
        except filelock.Timeout:
            raise StorageError(f"{self.folder}: another process still writes checkpoints here") from None
        except OSError as error:
            raise storage_error(self.folder, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except StorageError:
            if error is None:  # what went wrong first says more
                raise
        finally:
            self._lock.release()

    def save(self, position: tuple[int, int], content: dict[str, Any], *, best: bool = False) -> None:
        """Start writing the checkpoint of a position; waits for the one before.

        Args:
            position: (epochs completed, optimizer steps done of the next).
            content: Tensors on any device, and plain data; may change as soon as this returns.
            best: Whether these weights are the best so far.

        Raises:
            StorageError: the write before this one failed.
        """
        self.wait()
        at, copied = Position(*position), snapshot(content)
        self._writer.start(lambda: self._write(at, copied, {**at._asdict(), "best": best}))

    def wait(self) -> None:
        """Return when everything saved is on the disk; raises StorageError where it could not be written."""
        self._writer.wait()

    @property
    def writing(self) -> bool:
        """Whether a checkpoint is on its way to the disk."""
        return self._writer.busy

    def positions(self) -> list[Position]:
        """Sealed checkpoints, newest first; whether they are intact shows when they are read."""
        found = [_NAME.fullmatch(seal.stem) for seal in self.folder.glob("epoch_*.json")]
        return sorted((Position(int(m[1]), int(m[2] or 0)) for m in found if m), reverse=True)

    def best(self) -> Position | None:
        """The newest checkpoint that was the best when it was saved; None where there is none."""
        return next((p for p in self.positions() if sealed.about(self.path(p)).get("best") is True), None)

    def load_latest(self, map_location: str | torch.device = "cpu") -> dict[str, Any] | None:
        """Read the newest intact checkpoint, or None; each damaged one is passed over with a warning."""
        for position in self.positions():
            path = self.path(position)
            try:
                return sealed.read(path, map_location)
            except sealed.DAMAGE as error:
                self.notes.append(f"checkpoint {path} is damaged ({error}); using the one before")
                warnings.warn(self.notes[-1], stacklevel=2)
        if self.notes:
            self.notes.append(f"no checkpoint in {self.folder} is intact; starting over")
        return None

    def load(self, position: tuple[int, int], map_location: str | torch.device = "cpu") -> dict[str, Any]:
        """Read one checkpoint; raises one of `sealed.DAMAGE` where it is missing or damaged."""
        return sealed.read(self.path(position), map_location)

    def path(self, position: tuple[int, int]) -> Path:
        """The file of a position, whether it is there or not."""
        epoch, step = position
        within = f"_step_{step:06d}" if step else ""
        return self.folder / f"epoch_{epoch:04d}{within}.pt"

    def _write(self, position: Position, content: dict[str, Any], about: dict[str, Any]) -> None:
        try:
            if not self._swept:
                self._sweep()
            sealed.write(self.path(position), content, about)
            self._forget(position)
            self._written()
        except StorageError:
            raise
        except OSError as error:
            raise storage_error(self.folder, error) from error

    def _forget(self, newest: Position) -> None:
        positions = self.positions()
        # What lies ahead was passed over as damaged: the run went back behind it.
        ahead = [position for position in positions if position > newest]
        reached = [position for position in positions if position <= newest]
        best = self.best()
        for position in ahead + [old for old in reached[self.keep :] if old != best]:
            sealed.remove(self.path(position))

    def _sweep(self) -> None:
        """Remove what killed writers left behind: half-written files, and files without a seal."""
        for leftover in self.folder.glob(".epoch_*"):
            leftover.unlink(missing_ok=True)
        for path in self.folder.glob("epoch_*.pt"):
            if not path.with_suffix(".json").exists():
                path.unlink(missing_ok=True)
        self._swept = True
