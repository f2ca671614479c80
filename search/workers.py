"""Trials of several workers: a TorchTrainer in a Tune trial, whose resources come back when it is stopped."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import PlacementGroup, remove_placement_group

from trainable import atomic
from trainable.config import TrainConfig
from trainable.distributed import Workers, fit
from trainable.inprocess import LOG_FILE, guarded, take_over
from trainable.scratch import scratch
from trainable.working import put, working_folder

PLACEMENT_FILE = ".placement_group"


def run_with_workers(trial: dict[str, Any], workers: Workers) -> None:
    """Ray Tune function trainable that trains one configuration through a TorchTrainer."""
    remote = trial.get("remote")
    folder = scratch("trial") if remote else Path(trial["folder"])
    callbacks = [TuneReportCallback(), RememberPlacement(folder, remote)]

    def work() -> None:
        try:
            config = TrainConfig(**trial["config"])
            if "inherit" in trial:
                with working_folder(trial) as own:  # before any worker reads what is there
                    take_over(trial, own)
            fit(config, folder, workers, pausable=trial["pausable"], callbacks=callbacks, remote=remote)
        except ray.train.WorkerGroupError as error:  # what it is in the first worker that failed
            raise next(iter(error.worker_failures.values())) from error

    try:
        guarded(folder, work)
    finally:
        if remote:
            put(remote, LOG_FILE, (folder / LOG_FILE).read_bytes())


class RememberPlacement(WorkerGroupCallback):
    """Writes down where a trial's workers were placed, so that `release` can free it.

    When a search stops a trial, Ray kills the process that owns the workers, but what was reserved for
    them (their placement group) belongs to the whole search. Ray's own remedy, one more process per trial,
    needs the dashboard, and without one the next trial waits for ever. Here the search frees the reservation
    itself.

    Args:
        folder: The trial's folder.
        remote: Where the search looks for the note, if not there: the trial's folder in a bucket.
    """

    def __init__(self, folder: Path, remote: str | None = None) -> None:
        self._file = folder / PLACEMENT_FILE
        self._remote = remote

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Runs in Ray Train's controller, once the workers are there."""
        group = worker_group.get_worker_group_state().placement_group_handle.placement_group
        if self._remote:
            put(self._remote, PLACEMENT_FILE, group.id.hex().encode())
        else:
            atomic.write_text(self._file, group.id.hex())


def release(folder: Path) -> None:
    """Free what a trial's workers had reserved; they end with it."""
    file = folder / PLACEMENT_FILE
    with contextlib.suppress(FileNotFoundError, ValueError):
        group = ray.PlacementGroupID(bytes.fromhex(file.read_text()))
        remove_placement_group(PlacementGroup(group))
        file.unlink()
