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
from trainable.working import files_of

_MARK = "inherited"


def inherit(folder: Path, config: TrainConfig, source: dict[str, Any], epoch: int, mark: str) -> None:
    """Make another run's checkpoint after `epoch` the one that the run in `folder` goes on from.

    Weights, optimizer and random states are the other's; rows, seed and settings stay the run's own. Done
    once: after a kill the same call does what is missing, and nothing where the run has gone on already.
    Where the other's checkpoint is damaged, the run goes on with its own weights, and says so.

    Args:
        folder: Folder of the run, which has completed `epoch` epochs.
        config: The run's settings from here on.
        source: The other run: `folder`, or `remote`, see trainable/working.py.
        epoch: Completed epochs of both.
        mark: Names the run and the epoch; the same mark is not taken over twice.
    """
    position = Position(epoch)
    with CheckpointStore(folder / CHECKPOINTS) as store:
        own = store.path(position)
        newest = max(store.positions(), default=Position(0))
        if newest > position or sealed.about(own).get(_MARK) == mark:
            return
        name = f"{CHECKPOINTS}/{own.name}"
        try:
            with files_of(source, [name, str(Path(name).with_suffix(".json"))]) as theirs:
                content = sealed.read(theirs / name)
        except sealed.DAMAGE as error:
            warnings.warn(f"checkpoint of {mark} is damaged ({error}); keeping own weights", stacklevel=2)
            return
        content |= {"history": _rows(folder, epoch), "config": config.model_dump(mode="json")}
        sealed.write(own, content, {**position._asdict(), "best": False, _MARK: mark})


def _rows(folder: Path, epoch: int) -> list[dict[str, Any]]:
    rows = read_rows(folder)[:epoch]
    assert len(rows) == epoch, f"{folder} has {len(rows)} rows, and is to go on after epoch {epoch}"
    return rows
