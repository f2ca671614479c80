"""Mixup and CutMix: training on mixtures of two images, reproducibly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from trainable.config import TrainConfig


class Mixing:
    """Mixes each image of a batch with its neighbour through torchvision, as `mixup` and `cutmix` ask.

    Which of the two and how much is a function of (seed, epoch, step): the same on every worker, after a
    resume, and however many images are computed at a time. Where both are asked for, each step takes one
    of them with equal chance.

    Args:
        config: `mixup` and `cutmix` are the alphas of their Beta distributions, 0 turns one off.
        num_classes: K.
    """

    def __init__(self, config: TrainConfig, num_classes: int) -> None:
        self._seed = config.seed
        self._transforms: list[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = []
        if not (config.mixup or config.cutmix):
            return
        from torchvision.transforms import v2  # takes seconds, which few runs need

        if config.mixup:
            self._transforms.append(v2.MixUp(alpha=config.mixup, num_classes=num_classes))
        if config.cutmix:
            self._transforms.append(v2.CutMix(alpha=config.cutmix, num_classes=num_classes))

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return images like `images`, and labels (N,) as they are or mixed probabilities (N, K)."""
        if not self._transforms:
            return images, labels
        with torch.random.fork_rng(devices=[]):  # both draw from the CPU's generator
            torch.manual_seed(_key(self._seed, epoch, step))
            choice = int(torch.randint(len(self._transforms), (1,)))
            return self._transforms[choice](images, labels)


def _key(*parts: int) -> int:
    # Seeds that follow each other give MT19937 streams that begin alike; a hash spreads them.
    digest = hashlib.sha256(repr(("mixing", *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
