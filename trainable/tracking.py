"""Where a run's numbers go: `result.json` for programs (a JSON object per epoch), TensorBoard for people."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from trainable import atomic
from trainable.metrics import EPOCH

RESULT_FILE = "result.json"


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """All complete rows of a run's result file, oldest first; a row torn by a kill is left out."""
    try:
        lines = (folder / RESULT_FILE).read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # only the last line can be torn
            break
    return rows


class Tracker:
    """Writes one row per epoch; a resumed run goes on where its checkpoint stands, no epoch twice.

    Args:
        folder: Folder of the run.
        history: Rows of all epochs before this start, as the checkpoint knows them.
        config: The run's configuration, written beside the rows as params.json.
    """

    def __init__(self, folder: Path, history: list[dict[str, Any]], config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes two seconds; only worker 0 pays

        self._path = folder / RESULT_FILE
        atomic.write_json(folder / "params.json", config)
        # Rows after the checkpoint will come again: the checkpoint's own history replaces the file.
        atomic.write_text(self._path, "".join(json.dumps(row) + "\n" for row in history))
        done = int(history[-1][EPOCH]) if history else 0
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
        self._wandb = None if config.get("wb_suppress", True) else _start_wandb(folder, config)

    def __enter__(self) -> Self:
        return self

    def log(self, row: dict[str, Any]) -> None:
        """Append one epoch's metrics; numbers become TensorBoard scalars at step `epoch`.

        A list (accuracy per time step) becomes the scalars `name/1`, `name/2`, ...: TensorBoard draws them
        side by side.
        """
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in _scalars(row).items():
            if name != EPOCH and isinstance(value, int | float) and not isinstance(value, bool):
                self._tensorboard.add_scalar(name, value, int(row[EPOCH]))
        self._tensorboard.flush()
        if self._wandb is not None:
            self._wandb.log(row, step=int(row[EPOCH]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if kind is None else 1)


def _scalars(row: dict[str, Any]) -> dict[str, Any]:
    """The row with every list of numbers spread out."""
    spread: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, list):
            spread |= {f"{name}/{i}": item for i, item in enumerate(value, start=1)}
        else:
            spread[name] = value
    return spread


def _start_wandb(folder: Path, config: dict[str, Any]) -> Any:
    """A Weights & Biases run, continued under the same id after a resume; None without the package."""
    try:
        import wandb
    except ImportError:
        print("Weights & Biases is off: the package wandb is not installed (pip install wandb)")
        return None
    return wandb.init(
        project="recurrent-vision-search",
        id=folder.name,
        resume="allow",
        dir=str(folder),
        group=config["wb_group"],
        name=config["wb_run_name"],
        config=config,
    )
