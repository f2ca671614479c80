"""Settings of a run: where it starts, what is kept of it, and where it is logged."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainable.config.base import Settings


class KeepingSettings(Settings):
    """Where a run starts, what is kept of it, and where it is logged.

    Weights & Biases is optional: pip install wandb.
    """

    init: str | None = None
    """Weights to start from: a state_dict whose names and shapes are those of the network, in a file of
    `--out`, of the original code or of a checkpoint. `--init FILE` sets it."""

    checkpoint_interval: int = Field(default=5, gt=0)
    """Epochs between two checkpoints: what a killed run has to do again at most. An interrupted or finished
    run writes one at once."""

    checkpoint_every_steps: int | None = Field(default=None, gt=0)
    """Optimizer steps between two checkpoints within an epoch, for long epochs. Left out: none."""

    keep_checkpoints: int = Field(default=2, ge=2)
    """Newest checkpoints kept; two at least, so that a torn one has a predecessor. The best stays too."""

    best_metric: Literal["val_acc", "val_loss"] = "val_acc"
    """What makes a checkpoint the best: the highest accuracy or the lowest loss on the validation images."""

    do_reload: bool = True
    """Continue from the last checkpoint when the same command is given again; false starts over. `--fresh`,
    `--resume` and `--force` override it."""

    wb_suppress: bool | None = None
    """Whether not to log to Weights & Biases. Left out: log there if another wb_ key is given."""

    wb_group: str | None = None
    """Group of the run there."""

    wb_run_name: str | None = None
    """Name of the run there."""

    wb_sweep_id: str | None = None
    """Sweep the run shows under there. The sweep does not choose settings: run_search.py searches."""

    @property
    def logs_to_wandb(self) -> bool:
        """Whether the user asked for Weights & Biases."""
        if self.wb_suppress is not None:
            return not self.wb_suppress
        return any(key is not None for key in (self.wb_group, self.wb_run_name, self.wb_sweep_id))


BOOKKEEPING = frozenset(KeepingSettings.model_fields) - {"init", "best_metric"}
"""Settings that change nothing of what is trained: a run goes on when they change."""
