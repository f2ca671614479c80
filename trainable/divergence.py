"""Noticing that a run's numbers stopped being finite, and that it was asked to stop, without waiting."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

CAUSES = ("exploding_state", "nan_loss", "exploding_gradient")
"""Why a run diverged, in the order in which one step computes them: the first one found is the cause."""


class Verdict(NamedTuple):
    """What the flags of one step say."""

    step: int
    """Optimizer steps of the whole run, from 1."""

    cause: str | None
    """Key of CAUSES where the run diverged in this step."""

    stop: bool
    """Whether a worker was asked to stop."""


class Watch:
    """Reads the flags of every step, on a GPU one step late.

    To read a number the host has to wait until the device has computed it. On a GPU the flags of a step
    are therefore copied aside and looked at when the next step is queued already: the device never idles,
    and a run that diverged makes one step more, which nobody sees. The step named is exact. On a CPU
    there is nothing to wait for, and the flags are read at once.

    Flags are (4,) numbers: one per cause, in order, then the requests to stop; above 0 means yes.
    """

    def __init__(self, device: torch.device) -> None:
        self._lag = 1 if device.type == "cuda" else 0
        self._pending: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def push(self, step: int, flags: Tensor) -> Verdict | None:
        """Take the flags of `step`; returns the oldest verdict that is due, if it matters."""
        event = None
        if flags.is_cuda:
            flags = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True).copy_(
                flags, non_blocking=True
            )
            event = torch.cuda.Event()
            event.record()
        self._pending.append((step, flags, event))
        return self._read(self._lag)

    def flush(self) -> Verdict | None:
        """Wait for all flags pushed; the first verdict that matters, or None."""
        return self._read(0)

    def _read(self, leave: int) -> Verdict | None:
        while len(self._pending) > leave:
            step, flags, event = self._pending.popleft()
            if event is not None:
                event.synchronize()
            *found, stop = (value > 0 for value in flags.tolist())
            if any(found) or stop:
                cause = CAUSES[found.index(True)] if any(found) else None
                return Verdict(step, cause, stop)
        return None
