"""What a run reports: names, written once so that no misspelt one passes unseen, and how hits are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

EPOCH = "epoch"
"""Completed epochs, from 1: the time that schedulers count in."""

VAL_ACC = "val_acc"
VAL_ACC_2T = "val_acc_2t"
"""Accuracy at twice the trained time steps; see the setting `val_2t` for when it is there."""

FINISHED = "finished"
"""True in the last report of a run that ended by itself; a trial stopped early never sends it."""

DIVERGED = "diverged"
"""In the last report of a run whose numbers stopped being finite: a key of trainable.divergence.CAUSES."""

DIVERGED_STEP = "diverged_step"
"""With DIVERGED: the optimizer step of the run, from 1, in which it was seen."""

NOTES = "notes"
"""Sentences for the user, in the report of the epoch they belong to."""

SHAPE_METRICS = (
    "shape_bias",
    "normal_acc",
    "foreground_acc",
    "silhouette_acc",
    "frankenstein_acc",
    "serrated_acc",
)
"""What diagnostic stimuli tell of a network, where the setting `shape_metrics` asks for it; fractions."""

OBJECTIVES = {
    "val_acc": "max",
    "val_acc5": "max",
    "val_acc_2t": "max",
    "val_loss": "min",
    "train_acc": "max",
    "train_acc5": "max",
    "train_loss": "min",
    "seconds_per_image": "min",
    "images_per_second": "max",
    "peak_memory_gib": "min",
    "parameters": "min",
    "image_steps": "min",
    **dict.fromkeys(SHAPE_METRICS, "max"),
}
"""Metrics a search can optimize, each with its natural mode. Accuracies are fractions, losses nats."""

MEASURES = {
    "learning_rate": "of the epoch's last step",
    "images_per_second": "training images per second, over all workers",
    "seconds_per_image": "its inverse",
    "wait_seconds": "part of the training time in which the slowest worker waited for data",
    "seconds": "wall time of the epoch",
    "peak_memory_gib": "most memory a worker used: tensors on a GPU, the whole process on a CPU",
    "image_steps": "training images so far, times the time steps of each",
    "parameters": "weights of the network",
    "micro_batch": "images per forward pass and worker",
    "val_acc_t": "accuracy at every time step, a list",
}
"""What else every report holds."""


def hits(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """How many labels (N,) are among the k largest of their logits (N, K); all are where k exceeds K."""
    if k == 1:
        return (logits.argmax(1) == labels).sum()
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (best == labels[:, None]).sum()


def counts(loss: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """(4,) float64: summed loss, hits of one guess and of five, images; of a mixture the larger part counts.

    Sums in float64 are exact for counts, and add up to the same means over any number of workers.
    """
    import torch  # here, because the names above are also read where nothing is trained

    labels = targets if targets.ndim == 1 else targets.argmax(1)
    images = torch.full((), len(labels), device=logits.device)
    values = (loss.detach(), hits(logits, labels, 1), hits(logits, labels, 5), images)
    return torch.stack([value.double() for value in values])


def epoch_line(row: dict[str, Any], epochs: int | str, best: float, best_epoch: int) -> str:
    """One epoch as a line for people, every number with its unit."""
    return (
        f"epoch {row[EPOCH]:g}/{epochs}  val_acc {100 * row['val_acc']:.1f} % "
        f"(best {100 * best:.1f} % @ {best_epoch})  val_loss {row['val_loss']:.3f}  "
        f"train_loss {row['train_loss']:.3f}  lr {row['learning_rate']:.2g}  "
        f"{row['images_per_second']:,.0f} img/s  {row['seconds']:.1f} s"
    )
