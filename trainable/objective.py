"""What is minimised: cross-entropy over time steps, in the precision asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from trainable.config import TrainConfig

_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """The context in which the network computes; weights, loss and optimizer stay float32."""
    dtype = _AUTOCAST[config.precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def time_weights(config: TrainConfig) -> list[float]:
    """Share of every time step in the loss; they sum to one, so that T doesn't change the loss' size.

    `last` is (0, ..., 0, 1), `uniform` 1/T each, `linear` proportional to t = 1..T; a list is normalised.
    """
    steps = config.time_steps
    if isinstance(config.time_loss, list):
        raw = [float(weight) for weight in config.time_loss]
    else:
        raw = {
            "last": [0.0] * (steps - 1) + [1.0],
            "uniform": [1.0] * steps,
            "linear": [float(t) for t in range(1, steps + 1)],
        }[config.time_loss]
    return [weight / sum(raw) for weight in raw]


class Outcome(NamedTuple):
    """What one forward pass over N images gave."""

    loss: Tensor
    """Summed over the images, in nats; with a graph for backward."""

    logits: Tensor
    """(N, K) of the last time step, float32, without a graph."""

    flags: Tensor
    """(2,) float32: 1 where a hidden state, and where the loss, is not finite."""


class Objective:
    """The training loss of a network on images and targets.

    Args:
        config: `time_loss`, `label_smoothing` and `precision` are read.
        device: Where it computes.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.weights = time_weights(config)

    def __call__(self, network: nn.Module, images: Tensor, targets: Tensor) -> Outcome:
        """Args: images: (N, 3, S, S); targets: (N,) class indices or (N, K) probabilities."""
        every_step = any(self.weights[:-1])
        with autocast(self.config, self.device):
            logits, hidden = network(images, return_all=every_step, return_hidden=True)
        steps: list[Tensor] = logits if every_step else [logits]
        states = hidden[-1] if every_step else hidden
        # A network without memory makes one step, whatever time_steps says; its loss is the last step's.
        weights = self.weights[-len(steps) :] if len(steps) > 1 else [1.0]
        losses = [
            weight * self._loss(step, targets) for weight, step in zip(weights, steps, strict=True) if weight
        ]
        loss = torch.stack(losses).sum()
        with torch.no_grad():
            finite = [torch.isfinite(largest(tensors_of(states))), torch.isfinite(loss)]
            flags = 1.0 - torch.stack(finite).float()
        return Outcome(loss, steps[-1].detach().float(), flags)

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        # Half precision has 8 or 11 bits: a sum over a batch needs more.
        return F.cross_entropy(
            logits.float(), targets, reduction="sum", label_smoothing=self.config.label_smoothing
        )


def largest(tensors: Iterable[Tensor]) -> Tensor:
    """Largest absolute value over all tensors; NaN where one holds a NaN."""
    return get_total_norm(list(tensors), norm_type=torch.inf)


def tensors_of(states: Any) -> list[Tensor]:
    """All tensors of nested lists and tuples of states; None is a state not there."""
    if isinstance(states, Tensor):
        return [states]
    if states is None:
        return []
    return [tensor for state in states for tensor in tensors_of(state)]
