"""Settings of a run: what is kept of it, and where it is logged."""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from trainable.config.base import Settings


class KeepingSettings(Settings):
    """What is kept of a run, and where it is logged (Weights & Biases is optional: pip install wandb)."""

    checkpoint_interval: int = Field(default=5, gt=0)
    """Epochs between two checkpoints: what a killed run has to do again at most."""

    checkpoint_every_steps: int | None = Field(default=None, gt=0)
    """Optimizer steps between two checkpoints within an epoch, for epochs that take hours. Left out: none."""

    keep_checkpoints: int = Field(default=2, ge=2)
    """Checkpoints kept per run; two at least, so that a torn one has a predecessor."""

    do_reload: bool = True
    """Continue from the last checkpoint when the same command is given again; `--fresh` overrides it."""

    wb_suppress: bool = True
    """Don't log to Weights & Biases."""

    wb_group: str | None = None
    """Group of the run there."""

    wb_run_name: str | None = None
    """Name of the run there."""

    wb_sweep_id: str | None = None
    """Refused: sweeps are searched by run_search.py."""

    @model_validator(mode="after")
    def _sweeps_have_their_own_command(self) -> Self:
        if self.wb_sweep_id is not None:
            raise ValueError("wb_sweep_id: sweeps are searched by run_search.py; leave the key out")
        return self
