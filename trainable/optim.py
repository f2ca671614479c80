"""Optimizers, which parameters they decay, gradient clipping."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from trainable.config import TrainConfig

_Groups = list[dict[str, Any]]

# torch's Muon takes matrices only, and every weight here but a head's is a stack of them: left out.
# nadam and radam decay decoupled, as adamw does: their coupled form is what adamw corrects.
OPTIMIZERS: dict[str, Callable[[_Groups, TrainConfig], Optimizer]] = {
    "adam": lambda groups, c: torch.optim.Adam(groups, lr=c.learning_rate, fused=_fused(groups)),
    "adamw": lambda groups, c: torch.optim.AdamW(groups, lr=c.learning_rate, fused=_fused(groups)),
    "sgd": lambda groups, c: torch.optim.SGD(
        groups, lr=c.learning_rate, momentum=c.momentum, nesterov=c.momentum > 0, fused=_fused(groups)
    ),
    "rms": lambda groups, c: torch.optim.RMSprop(groups, lr=c.learning_rate, momentum=c.momentum),
    "nadam": lambda groups, c: torch.optim.NAdam(groups, lr=c.learning_rate, decoupled_weight_decay=True),
    "radam": lambda groups, c: torch.optim.RAdam(groups, lr=c.learning_rate, decoupled_weight_decay=True),
    "adafactor": lambda groups, c: torch.optim.Adafactor(groups, lr=c.learning_rate),
}


def build_optimizer(network: nn.Module, config: TrainConfig) -> Optimizer:
    """The optimizer `config.optimizer`; weight decay reaches convolution and linear weights alone.

    Norms, biases and the per-channel gains of the hGRU and fGRU (shape (C, 1, 1)) set scales: decaying
    them changes what the circuit computes instead of how smooth it is. `decay_all` decays them too.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    decayed = [p for p in trained if config.decay_all or is_kernel(p)]
    spared = [p for p in trained if not config.decay_all and not is_kernel(p)]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return OPTIMIZERS[config.optimizer]([g for g in groups if g["params"]], config)


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Go on from `state`, the state_dict of an optimizer of the same kind and the same parameters.

    Momentum and weight decay stay the optimizer's own, which may be others; the rate is the schedule's.
    """
    kept = ("params", "lr")
    settings = [{k: v for k, v in group.items() if k not in kept} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
        if isinstance(optimizer, torch.optim.RMSprop) and group["momentum"] > 0:
            # RMSprop makes this in the first step only, and only where there is momentum then.
            for parameter in optimizer.state.keys() & set(group["params"]):
                optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def is_kernel(parameter: Tensor) -> bool:
    """Whether a parameter mixes values (a matrix, a convolution) rather than scaling or shifting channels.

    A scale or a shift has one axis that is longer than 1, whatever its shape.
    """
    return parameter.ndim in (2, 4) and parameter.numel() > max(parameter.shape)


def clip_gradients(network: nn.Module, config: TrainConfig) -> Tensor:
    """Clip in place as `do_gradient_clipping`, `clip_value` and `clip_norm` say.

    Returns:
        L2 norm of all gradients before clipping, a scalar on their device; not finite where one is not.
    """
    parameters = [p for p in network.parameters() if p.grad is not None]
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    if config.do_gradient_clipping and config.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, config.clip_value)
    elif config.do_gradient_clipping:
        clip_grads_with_norm_(parameters, config.clip_norm, norm)
    return norm


def _fused(groups: _Groups) -> bool | None:
    # One kernel for all parameters, and no wait for the fp16 scaler's verdict; only worth it on a GPU.
    return True if all(p.is_cuda for group in groups for p in group["params"]) else None
