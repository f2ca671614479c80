"""What workers tell each other once per optimizer step: gradients, running statistics, flags."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainable.session import Session


def exchange(network: nn.Module, flags: Tensor, session: Session) -> Tensor:
    """Sum gradients and flags over the workers and average float buffers, in one all-reduce.

    DistributedDataParallel would overlap this with the backward pass, bucket by bucket. But then a worker
    that runs out of memory half-way through cannot repeat its step: the others have its first buckets
    already and wait for the rest. One exchange after the backward pass keeps every worker free to repeat,
    and keeps running statistics (of batch normalization) equal on all of them, so that any worker's
    checkpoint is the run's. A recurrent network computes for long between two exchanges.

    Args:
        network: Gradients of the summed loss over all workers' images, each worker's own share.
        flags: Float32, one-dimensional; whatever else is to be agreed on.
        session: The workers.

    Returns:
        The sum of the flags.
    """
    if session.world_size == 1:
        return flags
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    buffers = [b for b in network.buffers() if b.is_floating_point()]
    parts = [*gradients, *buffers, flags]
    flat = torch.cat([part.detach().reshape(-1).float() for part in parts])
    session.sum(flat)
    *summed, flags = flat.split([part.numel() for part in parts])
    for part, values in zip(gradients, summed, strict=False):
        part.copy_(values.view_as(part))
    for part, values in zip(buffers, summed[len(gradients) :], strict=True):
        part.copy_(values.view_as(part) / session.world_size)
    return flags
