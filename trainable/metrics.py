"""Names of everything a run reports: written once, so that a misspelt one cannot pass unseen."""

from __future__ import annotations

EPOCH = "epoch"
"""Completed epochs, from 1: the time that schedulers count in."""

VAL_ACC = "val_acc"
FINISHED = "finished"
"""True in the last report of a run that ended by itself; a trial stopped early never sends it."""

DIVERGED = "diverged"
"""In the last report of a run whose numbers stopped being finite: the cause, e.g. `nan_loss`."""

OBJECTIVES = {
    "val_acc": "max",
    "val_loss": "min",
    "train_acc": "max",
    "train_loss": "min",
}
"""Metrics a search can optimize, each with its natural mode. Accuracies are fractions, losses nats."""

MEASURES = ("learning_rate", "images_per_second", "seconds")
"""What else every report holds: learning rate of the epoch, training speed, wall time of the epoch."""


def epoch_line(row: dict[str, float], epochs: int | str, best: float, best_epoch: int) -> str:
    """One epoch as a line for people, every number with its unit."""
    return (
        f"epoch {row[EPOCH]:g}/{epochs}  val_acc {100 * row['val_acc']:.1f} % "
        f"(best {100 * best:.1f} % @ {best_epoch})  val_loss {row['val_loss']:.3f}  "
        f"train_loss {row['train_loss']:.3f}  lr {row['learning_rate']:.2g}  "
        f"{row['images_per_second']:,.0f} img/s  {row['seconds']:.1f} s"
    )
