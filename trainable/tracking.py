"""Where a run's numbers go: `result.json` for programs (a JSON object per epoch), TensorBoard for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from trainable import atomic
from trainable.metrics import EPOCH
from trainable.weights_and_biases import WandbLog

RESULT_FILE = "result.json"
TENSORBOARD_FOLDER = "tensorboard"


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """All complete rows of a run's result file, oldest first.

    A row torn by a kill is left out, and so is what came into the file from elsewhere.
    """
    try:
        lines = (folder / RESULT_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # only the last line can be torn
            break
        if isinstance(row, dict) and isinstance(row.get(EPOCH), int):
            rows.append(row)
    return rows


class Tracker:
    """Writes one row per epoch; a resumed run goes on where its checkpoint stands, no epoch twice.

    Args:
        folder: Folder of the run.
        history: Rows of all epochs before this start, as the checkpoint knows them.
        config: The run's configuration, written beside the rows as params.json.
        wandb: Whether to log to Weights & Biases too.
    """

    def __init__(
        self, folder: Path, history: list[dict[str, Any]], config: dict[str, Any], *, wandb: bool = False
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes two seconds; only worker 0 pays

        self._path = folder / RESULT_FILE
        atomic.write_json(folder / "params.json", config)
        # Rows after the checkpoint will come again: the checkpoint's own history replaces the file.
        atomic.write_text(self._path, "".join(json.dumps(row) + "\n" for row in history))
        # A kill between the last epoch's checkpoint and its `log` left that one out of the curves.
        last = history[-1] if history else None
        self._tensorboard = SummaryWriter(
            str(folder / TENSORBOARD_FOLDER), purge_step=last[EPOCH] if last else 1
        )
        self._wandb = WandbLog(folder, config) if wandb else None
        if last:
            self._draw(last)

    def __enter__(self) -> Self:
        return self

    def log(self, row: dict[str, Any]) -> None:
        """Append one epoch's metrics and bring them to the disk.

        Numbers become curves over epochs; a list of numbers becomes one curve per entry, `name/01` on.

        Raises:
            StorageError: the row cannot be written.
        """
        atomic.append_line(self._path, json.dumps(row))
        self._draw(row)

    def _draw(self, row: dict[str, Any]) -> None:
        step, values = int(row[EPOCH]), dict(_numbers(row))
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)
        self._tensorboard.flush()
        if self._wandb is not None:
            self._wandb.log(values, step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.close(failed=kind is not None)


def _numbers(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        for key, item in (
            [(f"{name}/{place:02d}", item) for place, item in enumerate(value, start=1)]
            if isinstance(value, list)
            else [(name, value)]
        ):
            if key != EPOCH and isinstance(item, int | float) and not isinstance(item, bool):
                yield key, item
