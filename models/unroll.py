"""Unrolling a stack of cells over time with as little work and memory as its equations allow.

There are no top-down connections, so the order is layer by layer: a block runs through all its steps before
the next one starts, whose input convolutions then take all steps' images at once.

Shape letters: N images, C channels, Y x X feature map, T time steps.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from models.cells import Cell, State
from models.dropout import SpatialDropout
from models.normalization import batch_statistics_counted

# Memory of all blocks' states after a step, in units of what a step keeps for its backward pass: 0.2 to 0.5
# in the cells. It decides only how recomputation is divided, never what comes out.
STATE_SIZE = 1 / 3


def segment_lengths(steps: int) -> list[int]:
    """How `recompute` divides time steps into segments, so that memory peaks as low as it can.

    A segment leaves its last states alone, so in the backward pass of the k-th, k - 1 states are alive beside
    its own activations: later segments are shorter. The last one is not computed again, for its backward
    pass follows at once.
    """
    peak = 1.0
    while True:
        lengths: list[int] = []
        while (room := math.floor(peak - STATE_SIZE * len(lengths))) >= 1 and sum(lengths) < steps:
            lengths.append(min(room, steps - sum(lengths)))
        if sum(lengths) == steps:
            return lengths
        peak += STATE_SIZE


@dataclass
class Unrolled:
    """What a stack of cells did in each step that was asked for."""

    features: list[Tensor]
    """Pooled maps of the last block."""

    hidden: list[list[State]]
    """States of all blocks; empty lists where nobody asked for them."""


@dataclass(frozen=True)
class CellStack:
    """Cells above each other that see one image many times, and how to run them.

    `masks` is the dropout of each block's state where convolutions read it, `carried` the original's: drawn
    anew in every step for the state that the last block carries on, which therefore grows by 1 / (1 - p)
    per step.
    """

    blocks: Sequence[Cell]
    pools: Sequence[bool]
    masks: Sequence[Tensor | None]
    carried: SpatialDropout | None = None

    def unroll(self, x: Tensor, steps: int, every: bool, hidden: bool, recompute: bool = False) -> Unrolled:
        """Run `steps` steps on x, the first block's input, which stays the same.

        Args:
            every: Return every step's features and states, not the last one's alone.
            hidden: Return states.
            recompute: Keep the states between segments and compute all else again in the backward pass.
        """
        states: list[State] = [None] * len(self.blocks)
        result = Unrolled([], [])
        first = self.blocks[0]
        drive = first.drive(x) if steps > 1 else first.drives([x], _starts_dead(first, None))[0]
        start = 0
        for length in segment_lengths(steps) if recompute and torch.is_grad_enabled() else [steps]:
            times = range(start, start + length)
            start = times.stop
            kept = times if every else range(steps - 1, steps)
            final = times.stop == steps and not hidden
            arguments = (drive, states, times, kept, hidden, final)
            if times.stop == steps:
                features, kept_hidden, states = self._segment(*arguments)
            else:
                features, kept_hidden, states = checkpoint(
                    self._segment,
                    *arguments,
                    use_reentrant=False,
                    preserve_rng_state=self._draws,
                    context_fn=lambda: (nullcontext(), _without_statistics(self.blocks)),
                )
            result.features.extend(features)
            result.hidden.extend(kept_hidden)
        return result

    @property
    def _draws(self) -> bool:
        """Whether steps draw random numbers, which have to be the same ones when a step is repeated."""
        noise = any(b.hidden_init == "random" and b.hidden_seed is None for b in self.blocks)
        return noise or self.carried is not None

    def _segment(
        self, drive: Any, states: list[State], times: range, kept: range, hidden: bool, final: bool
    ) -> tuple[list[Tensor], list[list[State]], list[State]]:
        """Layer by layer through some steps: (features, states of the steps in `kept`, last states)."""
        drives = [drive] * len(times)
        kept_hidden: list[list[State]] = [[] for t in times if t in kept]
        states = list(states)
        features: list[Tensor] = []
        for j, (block, pool, mask) in enumerate(zip(self.blocks, self.pools, self.masks, strict=True)):
            if j:
                drives = block.drives(features, dead_start=_starts_dead(block, states[j]))
            top = j == len(self.blocks) - 1
            kernels, features = block.kernels(), []
            for t, drive_t in zip(times, drives, strict=True):
                last = final and t == times[-1]
                output, states[j] = block.step(drive_t, states[j], t, kernels, mask, last)
                if top and self.carried is not None:
                    output, states[j] = self._dropped(output, states[j])
                if t in kept and hidden:
                    kept_hidden[t - max(times.start, kept.start)].append(states[j])
                if not top or t in kept:
                    features.append(F.max_pool2d(output, 2) if pool else output)
        return features, kept_hidden, states

    def _dropped(self, output: Tensor, state: State) -> tuple[Tensor, State]:
        assert self.carried is not None
        output = self.carried(output)
        return output, (output, state[1]) if isinstance(state, tuple) else state if state is None else output


def _starts_dead(block: Cell, state: State) -> bool:
    return state is None and block.hidden_init == "zero"


@contextmanager
def _without_statistics(blocks: Sequence[Cell]) -> Iterator[None]:
    """The forward pass that recomputation repeats must not count its batches again."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(batch_statistics_counted(block, 0))
        yield


class _ZeroGradients(torch.autograd.Function):
    """Pass the first argument on, and give every other one a gradient of zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:]
        zeros = (torch.zeros_like(p) if w else None for p, w in zip(ctx.saved_tensors, wanted, strict=True))
        return (gradient, *zeros)


def with_zero_gradients(x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """x, through which parameters without any influence on it have a gradient of zeros instead of none.

    DistributedDataParallel waits for the gradient of every parameter, and in a run of one or two steps some
    gates are never asked.
    """
    return _ZeroGradients.apply(x, *parameters) if parameters and torch.is_grad_enabled() else x
