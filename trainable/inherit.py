"""A run goes on with another's weights: population based training copies a checkpoint between two runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from trainable import sealed
from trainable.checkpoint import CheckpointStore, Position
from trainable.config import TrainConfig
from trainable.run_folder import CHECKPOINTS
from trainable.tracking import read_rows

_MARK = "inherited"


def inherit(folder: Path, config: TrainConfig, source: Path, epoch: int) -> None:
    """Make `source`'s checkpoint after `epoch` the one that the run in `folder` goes on from.

    Weights, optimizer and random states are the source's; rows, seed and settings stay the run's own. Done
    once: after a kill the same call does what is missing, and nothing where the run has gone on already.
    Where the source's checkpoint is damaged, the run goes on with its own weights, and says so.

    Args:
        folder: Folder of the run, which has completed `epoch` epochs.
        config: The run's settings from here on.
        source: Folder of the other run.
        epoch: Completed epochs of both.
    """
    mark = f"{source.name}@{epoch}"
    with CheckpointStore(folder / CHECKPOINTS) as store:
        own = store.path(Position(epoch))
        newest = max(store.positions(), default=Position(0))
        if newest > Position(epoch) or sealed.about(own).get(_MARK) == mark:
            return
        try:
            content = sealed.read(CheckpointStore(source / CHECKPOINTS).path(Position(epoch)))
        except sealed.DAMAGE as error:
            warnings.warn(
                f"{source.name}'s checkpoint is damaged ({error}); keeping own weights", stacklevel=2
            )
            return
        content |= {"history": _rows(folder, epoch), "config": config.model_dump(mode="json")}
        sealed.write(own, content, {**Position(epoch)._asdict(), "best": False, _MARK: mark})


def _rows(folder: Path, epoch: int) -> list[dict[str, Any]]:
    rows = read_rows(folder)[:epoch]
    assert len(rows) == epoch, f"{folder} has {len(rows)} rows, and is to go on after epoch {epoch}"
    return rows
