"""Weights & Biases, through its own library: optional, and never a reason for a run to fail.

Where runs go is the library's own business: WANDB_PROJECT, WANDB_ENTITY, WANDB_BASE_URL, and
WANDB_MODE=offline for machines without a network (`wandb sync FOLDER/wandb/offline-run-*` sends them later).
"""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path
from typing import Any

from trainable import atomic

PROJECT = "recurrent-vision-search"
ID_FILE = "wandb_id"

_logger = logging.getLogger(__name__)


def unavailable() -> str | None:
    """Why nothing can be logged, as one line for the user; None if it can."""
    try:
        import wandb
    except ImportError:
        return "Weights & Biases is off: the package is not installed (pip install wandb)"
    try:
        mode = wandb.setup().settings.mode
        if mode in ("online", "shared") and not wandb.login(prompt=False):
            return "Weights & Biases is off: not logged in (wandb login, or WANDB_MODE=offline)"
    except Exception as error:  # an invalid key, a server that does not answer
        return f"Weights & Biases is off: {_one_line(error)}"
    return None


class WandbLog:
    """One run there; started again after a kill it goes on under the same id.

    Args:
        folder: Folder of the run; the library's files go to `folder/wandb`.
        config: All settings of the run, wb_group, wb_run_name and wb_sweep_id among them.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._run = None if unavailable() else _start(folder, config)

    def log(self, values: dict[str, float], step: int) -> None:
        """Log the values of epoch `step`; the server drops what it has from before a kill."""
        self._call("log", values, step=step)

    def close(self, *, failed: bool) -> None:
        """End the run there; waits until everything is sent."""
        self._call("finish", exit_code=int(failed))
        self._run = None

    def _call(self, name: str, *values: Any, **options: Any) -> None:
        if self._run is None:
            return
        try:
            getattr(self._run, name)(*values, **options)
        except Exception as error:  # its own process died, e.g. of a signal to all processes of a job
            _logger.warning("Weights & Biases is off from here on: %s", _one_line(error))
            self._run = None


def run_id(folder: Path) -> str:
    """The run's id, drawn once. The folder's name would not do: every search has a trial_0000."""
    path = folder / ID_FILE
    if not path.exists():
        atomic.write_text(path, uuid.uuid4().hex[:12])
    return path.read_text()


def _start(folder: Path, config: dict[str, Any]) -> Any:
    import wandb

    try:
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id(folder),
            resume="allow",
            dir=str(folder),
            group=config["wb_group"],
            name=config["wb_run_name"],
            config={key: value for key, value in config.items() if not key.startswith("wb_")},
            settings=wandb.Settings(sweep_id=config["wb_sweep_id"], silent=True, console="off"),
        )
    except Exception as error:  # no network, no such sweep: training matters more than its log
        _logger.warning("Weights & Biases is off: %s", _one_line(error))
        return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
