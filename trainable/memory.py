"""Running out of memory: noticing it, going on with fewer images at a time, measuring how close it was."""

from __future__ import annotations

import gc
import resource
from typing import NamedTuple

import torch
from torch import Tensor, nn


class TooLarge(RuntimeError):
    """Not even one image at a time fits into memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU (where torch has no error type for it)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("DefaultCPUAllocator", "out of memory", "could not create a memory")
    )


class MicroBatch:
    """How many images a worker computes at a time; halved when memory runs out.

    Args:
        size: Images to start with, 1 or more.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.notes: list[str] = []
        """What to tell the user, once each."""

    def limit(self, images: int) -> None:
        """Start with fewer images, where that many are known not to fit."""
        if images < self.size:
            self.notes.append(
                f"memory for {images} of {self.size} images at a time: starting with {images} "
                f"(the effective batch stays the same)"
            )
            self.size = images

    def halve(self, where: str, error: BaseException) -> None:
        """Go on with half as many images, and give cached memory back.

        Raises:
            TooLarge: one image at a time is what failed.
        """
        if self.size <= 1:
            raise TooLarge(f"out of memory {where} with one image at a time: {_first_line(error)}")
        before, self.size = self.size, -(-self.size // 2)
        self.notes.append(
            f"out of memory {where} with {before} images at a time: going on with {self.size} "
            f"(batch_max {self.size} avoids this; the effective batch stays the same)"
        )
        free_memory()


def free_memory() -> None:
    """Give what nobody refers to any more back to the allocator, and cached GPU memory to the driver."""
    gc.collect()  # a traceback and its frames refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class Rewind(NamedTuple):
    """What a forward pass in training changes besides gradients, kept so that a step can be repeated."""

    cpu: Tensor
    cuda: Tensor | None
    buffers: list[Tensor]

    @classmethod
    def of(cls, network: nn.Module, device: torch.device) -> Rewind:
        """Remember random states and buffers (running statistics). Cheap: no parameter is copied."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), cuda, [buffer.clone() for buffer in network.buffers()])

    def restore(self, network: nn.Module, device: torch.device) -> None:
        """Bring everything back."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, device)
        with torch.no_grad():
            for buffer, before in zip(network.buffers(), self.buffers, strict=True):
                buffer.copy_(before)


def reset_peak(device: torch.device) -> None:
    """Start to measure the peak anew: of the GPU's tensors, or of this process on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # proc(5): reset the peak resident set size
    except OSError:
        pass  # not Linux, or not allowed: the peak is then the process' own


def peak_gib(device: torch.device) -> float:
    """Peak since `reset_peak`, in GiB: memory of the GPU's tensors, or resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        with open("/proc/self/status") as file:
            kibibytes = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes / 2**20
