"""What a training step keeps in memory, worked out without making it; what cannot fit is refused."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models import build_model
from trainable.config import TrainConfig
from trainable.memory import TooLarge

_GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup")
# Numbers kept per weight beside the weight and its gradient.
_OPTIMIZER = {"sgd": 1, "rms": 1, "adafactor": 0}


class Footprint(NamedTuple):
    """Bytes that a step keeps at least: a real one also needs work space, and what is cut off from use."""

    fixed: int
    """Weights, gradients, optimizer, averaged weights."""

    per_image: int
    """What the backward pass needs of each image."""

    def of(self, images: int) -> int:
        """Bytes with so many images at a time."""
        return self.fixed + images * self.per_image


def footprint(config: TrainConfig, num_classes: int, image_size: int) -> Footprint:
    """The lower bound for one network: what autograd saves in a forward pass on the meta device.

    Within 5 to 25 % of the peak of towers without `recompute`, for which it counts the last
    segment alone. Takes as long as launching a forward pass twice; draws no random number.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = build_model(config, num_classes).train()
        # One image alone has nothing to be normalised over where the last maps are 1x1.
        two, three = (_saved(network, images, image_size) for images in (2, 3))
    weights = sum(4 * parameter.numel() for parameter in network.parameters())
    copies = 2 + _OPTIMIZER.get(config.optimizer, 2) + (config.ema_decay is not None)
    per_image = three - two if config.precision == "fp32" else (three - two) // 2
    return Footprint(copies * weights, per_image)


def _saved(network: torch.nn.Module, images: int, size: int) -> int:
    """Bytes of all storages that autograd keeps for the backward pass, weights left out."""
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # alive, so that no two have the same address

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = network(torch.empty(images, 3, size, size))
        loss = F.cross_entropy(logits, torch.zeros(images, dtype=torch.int64))
    del loss
    return sum(storage.nbytes() for storage in kept.values())


def images_that_fit(need: Footprint, images: int, free: int) -> int:
    """How many of `images` to compute at a time within `free` bytes: all, or a half, a quarter, ... of them.

    Raises:
        TooLarge: not even one.
    """
    if need.of(1) > free:
        raise TooLarge(
            f"out of memory before the first step: one image at a time needs {need.of(1) / _GIB:.3g} GiB at "
            f"least, and {free / _GIB:.3g} GiB are free (memory_check: false tries all the same)"
        )
    while need.of(images) > free:
        images = -(-images // 2)
    return images


def free_bytes(device: torch.device) -> int:
    """Memory that this process may still take: of the GPU, or of the machine within its container's limit."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = 2**62
    with contextlib.suppress(OSError, StopIteration), open("/proc/meminfo") as file:
        free = next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    with contextlib.suppress(OSError, ValueError):  # no limit reads "max"
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        cached = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        free = min(free, limit - used + int(cached.get("inactive_file", 0)))
    return free
