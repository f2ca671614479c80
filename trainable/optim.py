"""Optimizers, which parameters they decay, gradient clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from trainable.config import TrainConfig

_Groups = list[dict[str, Any]]

OPTIMIZERS: dict[str, Callable[[_Groups, TrainConfig], Optimizer]] = {
    "adam": lambda groups, c: torch.optim.Adam(groups, lr=c.learning_rate),
    "adamw": lambda groups, c: torch.optim.AdamW(groups, lr=c.learning_rate),
    "sgd": lambda groups, c: torch.optim.SGD(
        groups, lr=c.learning_rate, momentum=c.momentum, nesterov=c.momentum > 0
    ),
    "rms": lambda groups, c: torch.optim.RMSprop(groups, lr=c.learning_rate, momentum=c.momentum),
}


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimizer `config.optimizer`; weight decay reaches convolution and linear weights alone.

    Norms, biases and the per-channel gains of the hGRU and fGRU (shape (C, 1, 1)) set scales: decaying
    them changes what the circuit computes instead of how smooth it is.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim in (2, 4)], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim not in (2, 4)], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[config.optimizer]([g for g in groups if g["params"]], config)


def clip_gradients(parameters: Iterable[nn.Parameter], config: TrainConfig) -> None:
    """Clip in place as `do_gradient_clipping`, `clip_value` and `clip_norm` say."""
    if not config.do_gradient_clipping:
        return
    if config.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, config.clip_value)
    else:
        nn.utils.clip_grad_norm_(parameters, config.clip_norm)
