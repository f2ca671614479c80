"""A one-worker trial inside Ray Tune's own trial process: no process of its own, no polling."""

from __future__ import annotations

import faulthandler
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from trainable.config import TrainConfig
from trainable.inherit import inherit
from trainable.loop import train
from trainable.memory import is_out_of_memory
from trainable.session import LocalSession
from trainable.working import working_folder
from trainable.working_folder import WorkingFolder

INFEASIBLE = "infeasible"
"""In the only report of a trial that cannot run: why, e.g. that one image does not fit in memory."""

LOG_FILE = "log.txt"
"""What a trial's process writes, and in a crash the Python stack it died in."""


class TuneSession(LocalSession):
    """A LocalSession that reports to Ray Tune; the scheduler may end the trial inside `report`.

    Args:
        folder: Folder of the trial.
        threads: CPU threads to use.
        pausable: Whether the trial may be put aside at a report, to go on later.
    """

    def __init__(self, folder: WorkingFolder, threads: int, *, pausable: bool) -> None:
        super().__init__(folder.path, threads)
        self.pausable = pausable
        self._working = folder

    def checkpoint_written(self) -> None:
        """Bring it into storage."""
        self._working.store_checkpoints()

    def report(self, metrics: dict[str, Any]) -> None:
        """Hand the metrics to Tune, once they are in storage, and wait until it lets the trial go on."""
        self._working.store()
        tune.report(metrics)


def run_trial(trial: dict[str, Any]) -> None:
    """Ray Tune function trainable; `trial` has `config` (TrainConfig), `threads`, `folder` or `remote`.

    It may be `pausable`; and where it holds `inherit`, the trial goes on with another's weights.
    """
    with working_folder(trial) as folder:
        session = TuneSession(folder, trial["threads"], pausable=trial["pausable"])

        def work() -> None:
            take_over(trial, folder)
            train(TrainConfig(**trial["config"]), session)

        guarded(folder.path, work)


def take_over(trial: dict[str, Any], folder: WorkingFolder) -> None:
    """Copy the weights that a trial is to go on with, where it is to."""
    if "inherit" not in trial:
        return
    source, epoch = trial["inherit"], trial["inherit"]["epoch"]
    inherit(folder.path, TrainConfig(**trial["config"]), source, epoch, source["mark"])
    folder.store_checkpoints()


def guarded(folder: Path, work: Callable[[], None]) -> None:
    """Do a trial's `work`: its output goes to the trial's log, and what does not fit in memory is reported.

    Raises:
        Exception: whatever else `work` raises.
    """
    write_log_to(folder)
    try:
        work()
    except Exception as error:
        if not is_out_of_memory(error):
            traceback.print_exc()
            raise
        why = _first_line(error)
        tune.report({INFEASIBLE: why if why.startswith("out of memory") else f"out of memory: {why}"})


def write_log_to(folder: Path) -> None:
    """Send what this process writes from here on, C libraries included, to the trial's log file."""
    folder.mkdir(parents=True, exist_ok=True)
    log = os.open(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    faulthandler.enable(2)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
