"""What a network costs: parameters, multiply-accumulates, images per second."""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

TIMED_SECONDS = 1.0


def parameters(model: nn.Module) -> int:
    """Trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.inference_mode()
def macs(model: nn.Module, image_size: int, steps: int) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image and `steps` time steps."""
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, image_size, image_size, device=device), time_steps=steps)
    return int(counter.get_total_flops()) // 2


@torch.inference_mode()
def images_per_second(model: nn.Module, image_size: int, steps: int, batch_size: int) -> float:
    """Speed of inference, measured over at least TIMED_SECONDS after one batch to warm up."""
    device = next(model.parameters()).device
    images = torch.zeros(batch_size, 3, image_size, image_size, device=device)

    def settle() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    model(images, time_steps=steps)
    settle()
    started, batches = time.perf_counter(), 0
    while time.perf_counter() - started < TIMED_SECONDS:
        model(images, time_steps=steps)
        settle()
        batches += 1
    return batches * batch_size / (time.perf_counter() - started)
