"""Batch normalization over the images of all workers together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainable.session import Session


class _Sum(torch.autograd.Function):
    """Sum over the workers; its gradient is the sum of theirs, as each worker's loss depends on the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, session: Session) -> Tensor:
        ctx.session = session
        return session.sum(values.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.session.sum(gradients[0].contiguous().clone()), None


class SyncBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose mean and variance in training are those of all workers' images.

    All workers must call it equally often. torch's SyncBatchNorm does the same on GPUs alone.
    """

    session: Session

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, session: Session) -> SyncBatchNorm2d:
        """The same normalization, sharing its parameters and running statistics."""
        synced = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        synced.weight, synced.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(synced, name, buffer)
        synced.session = session
        return synced.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, Y, X)."""
        if not self.training:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            x = input.float()
            variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
            count = x.new_full((1,), x.numel() // x.shape[1])
            # Second moments around zero of means that are not near it would cancel in float32.
            mean, square = mean.double(), variance.double() + mean.double() ** 2
            total = _Sum.apply(torch.cat([mean * count, square * count, count.double()]), self.session)
            mean, square = (total[:-1] / total[-1]).chunk(2)
            variance = (square - mean**2).clamp(min=0)
            self._follow(mean.detach().float(), variance.detach().float(), total[-1].detach())
            scale = (variance + self.eps).rsqrt().float()
            x = (x - mean.float()[:, None, None]) * scale[:, None, None]
            if self.affine:
                x = x * self.weight[:, None, None] + self.bias[:, None, None]
        return x.to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, towards the unbiased variance as nn.BatchNorm2d does."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        unbiased = variance * (count / (count - 1)).float()
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)


def synchronize(network: nn.Module, session: Session) -> None:
    """Replace every nn.BatchNorm2d inside `network`, in place; nothing to do for one worker alone."""
    if session.world_size == 1:
        return
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, SyncBatchNorm2d.of(child, session))
