"""What a run's command shows while its workers train: a line per epoch, a bar within the epoch."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from typing_extensions import Self

from trainable.atomic import StorageError
from trainable.metrics import EPOCH, NOTES, VAL_ACC, epoch_line
from trainable.say import say
from trainable.tracking import read_rows

PROGRESS_FILE = "progress.json"
_WRITE_SECONDS = 1.0


class StepReporter:
    """Worker 0's side: says at most once a second how far the epoch is."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: Folder of the run."""
        self._path = folder / PROGRESS_FILE
        self._next = 0.0

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Step `step` of `steps` of epoch `epoch` (from 1) is done."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _WRITE_SECONDS
        # Seen by people only: not worth an fsync, nor a failed run.
        aside = self._path.with_suffix(".new")
        try:
            aside.write_text(json.dumps({"epoch": epoch, "step": step, "steps": steps}))
            aside.replace(self._path)
        except OSError:
            pass


class EpochLines:
    """Prints a line per epoch, and what its row says to the user, while the run's result file grows.

    Where a terminal is, a bar shows how far the epoch is.

    The workers' own output may come from other machines and through Ray's log files; the run's folder is
    seen by all.

    Args:
        folder: Folder of the run, or the command's copy of it.
        epochs: Epochs of the run, or `early-stop`.
        read: Brings such a copy up to date.
        pause: Seconds between two looks.
    """

    def __init__(
        self, folder: Path, epochs: int | str, read: Callable[[], None] = lambda: None, pause: float = 0.2
    ) -> None:
        self._folder, self._epochs, self._read, self._pause = folder, epochs, read, pause
        self._printed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        console = Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )

    def __enter__(self) -> Self:
        rows = read_rows(self._folder)
        if rows:
            self._printed = int(rows[-1][EPOCH])
        if self._bar is not None:
            self._bar.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.stop()

    def _watch(self) -> None:
        while not self._stop.wait(self._pause):
            self._show()
        self._show()

    def _show(self) -> None:
        with contextlib.suppress(StorageError):  # what is there now is shown with the next look
            self._read()
        best, best_epoch = -math.inf, 0
        rows = read_rows(self._folder)
        # A run that goes on drops the rows after its checkpoint, and trains those epochs again.
        self._printed = min(self._printed, int(rows[-1][EPOCH]) if rows else 0)
        for row in rows:
            best, best_epoch = max((best, best_epoch), (_accuracy(row), row[EPOCH]), key=lambda pair: pair[0])
            if row[EPOCH] > self._printed:
                for note in row.get(NOTES, []):
                    self._print(note)
                self._print(epoch_line(row, self._epochs, best, best_epoch))
                self._printed = row[EPOCH]
        if self._bar is not None:
            self._move(self._bar)

    def _print(self, line: str) -> None:
        if self._bar is None:
            say(line)
        else:
            with contextlib.suppress(OSError):
                self._bar.console.print(line, markup=False)

    def _move(self, bar: Progress) -> None:
        try:
            at = json.loads((self._folder / PROGRESS_FILE).read_text())
        except (OSError, ValueError):
            return
        description = f"epoch {at['epoch']}/{self._epochs}"
        if self._task is None:
            self._task = bar.add_task(description, total=at["steps"])
        if bar.tasks[0].description != description:
            bar.reset(self._task, total=at["steps"], description=description)
        bar.update(self._task, completed=at["step"])


def _accuracy(row: dict[str, Any]) -> float:
    value = float(row[VAL_ACC])
    return value if math.isfinite(value) else -math.inf
