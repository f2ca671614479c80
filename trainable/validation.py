"""One pass over the validation data: loss, accuracy, and accuracy at every time step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data import BatchLoader
from trainable.memory import is_out_of_memory
from trainable.metrics import hits
from trainable.objective import autocast
from trainable.state import RunState


class Validation(NamedTuple):
    """Means over every image of the validation data, whichever worker saw it."""

    loss: float
    """Cross-entropy at the last time step, in nats; labels are never smoothed."""

    acc: float
    """Fraction right at the last time step."""

    acc5: float
    """Fraction with the label among the five likeliest (or all, where there are fewer classes)."""

    acc_t: list[float]
    """Fraction right at every time step from 1; one entry for a network without memory."""


@torch.inference_mode()
def validate(
    state: RunState,
    loader: BatchLoader,
    *,
    time_steps: int | None = None,
    interrupt: Callable[[], None] = lambda: None,
) -> Validation:
    """Validate the run's weights, the averaged ones where there are some.

    Args:
        state: The run.
        loader: Validation data; every image comes once over all workers.
        time_steps: Unroll this many steps; None is the number the network was trained with.
        interrupt: Called after every batch that all workers have; may raise.
    """
    network = state.ema.network if state.ema else state.network
    network.eval()
    sums: Tensor | None = None
    shared = min(state.session.gather(len(loader)))  # worker 0 may have a batch more than the last one
    for number, (images, labels) in enumerate(loader.epoch(0), start=1):
        batch = _batch_sums(state, network, images, labels, time_steps)
        sums = batch if sums is None else sums + batch
        if number <= shared:
            interrupt()
    # A worker without images (fewer images than workers) does not know how many steps there are.
    length = max(state.session.gather(0 if sums is None else len(sums)))
    if sums is None:
        sums = torch.zeros(length, dtype=torch.float64, device=state.session.device)
    total = state.session.sum(sums).tolist()
    images_seen = total[0]
    loss, acc5, *acc_t = (value / images_seen for value in total[1:])
    return Validation(loss if math.isfinite(loss) else math.nan, acc_t[-1], acc5, acc_t)


def _batch_sums(
    state: RunState, network: torch.nn.Module, images: Tensor, labels: Tensor, time_steps: int | None
) -> Tensor:
    """(3 + T,) sums over one batch: images, loss, right within five guesses, right at each step."""
    while True:
        try:
            size = state.micro_batch.size
            parts = zip(images.split(size), labels.split(size), strict=True)
            return torch.stack([_part_sums(state, network, *part, time_steps) for part in parts]).sum(0)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = error.with_traceback(None)
        state.micro_batch.halve("in validation", failure)


def _part_sums(
    state: RunState, network: torch.nn.Module, images: Tensor, labels: Tensor, time_steps: int | None
) -> Tensor:
    device = state.session.device
    images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
    with autocast(state.config, device):
        logits = network(images, time_steps=time_steps, return_all=True)
    steps = [step.float() for step in logits]
    count = torch.full((), len(labels), dtype=torch.float64, device=device)
    loss = F.cross_entropy(steps[-1], labels, reduction="sum")
    five = hits(steps[-1], labels, 5)
    return torch.stack([count, *(x.double() for x in (loss, five, *(hits(s, labels, 1) for s in steps)))])
