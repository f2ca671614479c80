"""Exponential moving average of weights (Polyak and Juditsky 1992): often better than the last weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """A second network whose weights follow the trained one's:

        a_0 = w_0,    a_n = d_n a_(n-1) + (1 - d_n) w_n,    d_n = min(decay, (1 + n) / (10 + n))

    after optimizer step n. The decay grows with n as in TensorFlow's ExponentialMovingAverage, or the
    average of a short run would still be its random beginning. Running statistics are averaged alike,
    counters are copied. torch.optim.swa_utils.AveragedModel asks the device for its counter in every step.

    Args:
        network: The network that is trained, before its first step.
        decay: d, below 1; 1 / (1 - d) is about the number of steps averaged over.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Follow `network` after optimizer step `step` of the run, from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for average, value in zip(_tensors(self.network), _tensors(network), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1.0 - decay)

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights."""
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.network.load_state_dict(state)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*(p.detach() for p in network.parameters()), *network.buffers()]
