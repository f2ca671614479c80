"""The unrolled tower: blocks of cells with poolings between them and a convolutional head.

Shape letters: N images, C channels, Y x X feature map, K classes, T time steps, L blocks.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from models.cells import Cell, State, build_cell
from models.convolution import MeanConv2d
from models.dropout import SpatialDropout
from models.normalization import BatchNormPerStep, batch_statistics_counted
from models.tower_types import tower_widths
from models.unroll import CellStack, with_zero_gradients

HEAD_KERNEL = 3


class FeedForwardTower(nn.Module):
    """A feed-forward stack of cells, each with its own memory, shown the same image T times.

    In each time step every block sees what the block below made of the same step (synchronous unrolling,
    no top-down connections). Logits are the 3x3 convolution `last_conv` of the last map, averaged over
    its valid positions: one position on the 3x3 map of a 224 px image, where this is the original's head.
    A map below 3x3 is padded by one zero on each side first. So every image size works that leaves each
    block the map it needs; `smallest_image` says which.

    What does not change over time is computed once: the leading blocks without memory (their batch norms
    still count T updates, as if computed T times) and the input convolutions of the first block that
    has one. unroll.CellStack does the rest.

    Args:
        num_classes: K.
        tower_type: Key of TOWER_TYPES: channels and poolings.
        cell_type: Key of cells.CELLS. "conv" has no memory: one step, whatever time_steps says.
        activation: Key of blocks.ACTIVATIONS.
        normalization: Key of normalization.NORMALIZATIONS; None means none.
        time_steps: T unless a call asks for another.
        dropout: Probability that a channel of the last map is dropped before the head, the same channels
            in all steps of one forward pass.
        dropout_recurrent: Probability that a channel of a block's state is dropped where convolutions read
            it, the same channels in all steps (variational dropout, Gal and Ghahramani 2016,
            arXiv:1512.05287). What a cell carries on is left whole, so the state does not grow.
        recompute: Compute activations again in the backward pass instead of keeping them: up to a third
            more time, and memory that grows with T by the states alone; for one step it changes nothing.
        skip_first: Make the first block a plain convolution block. Its map is the largest, so memory
            there costs the most.
        do_preconv: Give reciprocal, hgru and fgru blocks a convolution that makes their channels.
        preconv_kernel: Side of that convolution.
        cell_kernel: Side of the kernels of every block but the first. The original took the setting and used
            3 all the same, as thesis_exact does.
        filters: Channels of each block, instead of the tower type's.
        pools: Poolings of each block, instead of the tower type's; needed where the lengths differ.
        first_kernel: Side of the kernels of the first block. For 32 px images use 3.
        first_stride: Stride of the first block, unpadded if above 1. For 32 px images use 1.
        hidden_init: State before the first step, see Cell.initial_state; None is the cell's default.
        thesis_exact: The original's numbers where a cell corrects them, and its recurrent dropout: a new
            mask in every step on the state that the last block carries on.
        in_channels: Channels of the images.
        cell_options: Options of the cell beyond these, see the docstring of each cell.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        tower_type: str = "normal",
        cell_type: str = "conv",
        activation: str = "relu",
        normalization: str | None = "batchnorm",
        time_steps: int = 1,
        dropout: float = 0.0,
        dropout_recurrent: float = 0.0,
        recompute: bool = False,
        skip_first: bool = False,
        do_preconv: bool = True,
        preconv_kernel: int = 1,
        cell_kernel: int = 3,
        filters: Sequence[int] | None = None,
        pools: Sequence[bool] | None = None,
        first_kernel: int = 7,
        first_stride: int = 2,
        hidden_init: str | None = None,
        thesis_exact: bool = False,
        in_channels: int = 3,
        cell_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        filters, self.pools = tower_widths(tower_type, filters, pools)
        self.time_steps = _checked_steps(time_steps)

        blocks: list[Cell] = []
        for i, (ins, outs) in enumerate(pairwise([in_channels, *filters])):
            plain = i == 0 and skip_first
            try:
                block = build_cell(
                    "conv" if plain else cell_type,
                    ins,
                    outs,
                    kernel_size=first_kernel if i == 0 else 3 if thesis_exact else cell_kernel,
                    stride=first_stride if i == 0 else 1,
                    activation=activation,
                    normalization=normalization or "none",
                    time_steps=time_steps,
                    do_preconv=do_preconv,
                    preconv_kernel=preconv_kernel,
                    hidden_init=None if plain else hidden_init,
                    thesis_exact=thesis_exact,
                    **({} if plain else cell_options or {}),
                )
            except ValueError as error:
                raise ValueError(f"block {i} of the tower: {error}") from error
            blocks.append(block)
        self.cell_blocks = nn.ModuleList(blocks)
        self.dropout = SpatialDropout(dropout)
        self.dropout_recurrent = SpatialDropout(dropout_recurrent)
        self.recompute = recompute
        self.last_conv = MeanConv2d(filters[-1], num_classes, HEAD_KERNEL)
        # Over fan-in, unlike the blocks: logits start at the size of the features for any number of classes.
        nn.init.normal_(self.last_conv.weight, 0.0, 1.0 / math.sqrt(filters[-1] * HEAD_KERNEL**2))
        assert self.last_conv.bias is not None
        nn.init.zeros_(self.last_conv.bias)

        self._first_kernel, self._first_stride = first_kernel, first_stride
        self._carried_dropout = thesis_exact and dropout_recurrent > 0
        self._constant_blocks = next((i for i, b in enumerate(blocks) if b.recurrent), len(blocks))

    @property
    def _cells(self) -> list[Cell]:
        return list(self.cell_blocks)  # type: ignore[arg-type]

    @property
    def stateless(self) -> bool:
        """Whether no block has a memory, so that one time step says all."""
        return self._constant_blocks == len(self.cell_blocks)

    @property
    def smallest_image(self) -> int:
        """Side in pixels of the smallest square image whose maps suffice for every block and pooling."""
        side = 1
        for block, pool in zip(reversed(self._cells), reversed(self.pools), strict=True):
            side = max(block.smallest_map, side * 2 if pool else side)
        return side if self._first_stride == 1 else (side - 1) * self._first_stride + self._first_kernel

    def forward(
        self,
        x: Tensor,
        time_steps: int | None = None,
        return_all: bool = False,
        return_hidden: bool = False,
    ) -> Tensor | list[Tensor] | tuple[Tensor | list[Tensor], list[State] | list[list[State]]]:
        """Logits of images x, (N, in_channels, Y, X).

        Args:
            time_steps: T of this call; None is the tower's own. A tower without memory always makes one step.
            return_all: Return the logits of each time step, a list of T tensors, instead of the last.
            return_hidden: Return (logits, hidden) with the blocks' states before pooling: hidden[layer] of
                the last step, or with return_all hidden[t][layer]. A state is the (N, C, Y, X) output, or
                the pair (output, cell) of a block that has two.

        Returns:
            (N, K), a list of T (N, K), or either of them paired with the hidden states.
        """
        if x.ndim != 4:
            raise ValueError(f"images must be (N, C, Y, X), got shape {tuple(x.shape)}")
        self.check_size(*x.shape[2:])
        steps = 1 if self.stateless else _checked_steps(self.time_steps if time_steps is None else time_steps)

        constant_hidden: list[State] = []
        for i in range(self._constant_blocks):
            with batch_statistics_counted(self.cell_blocks[i], steps):
                x, _ = self.cell_blocks[i](x)
            constant_hidden.append(x)
            x = self._pool(i, x)
        if self.stateless:
            features, hidden = [x], [constant_hidden]
        else:
            blocks = self._cells[self._constant_blocks :]
            result = CellStack(
                blocks,
                self.pools[self._constant_blocks :],
                [self._state_mask(block, x) for block in blocks],
                self.dropout_recurrent if self._carried_dropout else None,
            ).unroll(x, steps, return_all, return_hidden, self.recompute)
            features = result.features
            hidden = [[*constant_hidden, *states] for states in result.hidden]

        mask = self.dropout.mask(features[0])
        logits = [self._head(self.dropout(feature, mask)) for feature in features]
        logits[-1] = with_zero_gradients(logits[-1], self._unasked(steps))
        if return_all:
            return (logits, hidden) if return_hidden else logits
        return (logits[-1], hidden[-1]) if return_hidden else logits[-1]

    def _unasked(self, steps: int) -> list[nn.Parameter]:
        """Parameters that may have had no part in the logits of so many steps."""
        if steps < max(self.time_steps, 3):
            return list(self.cell_blocks.parameters())
        # The norm of the last step's memory, which no step reads.
        per_step = [m for m in self.cell_blocks.modules() if isinstance(m, BatchNormPerStep)]
        return [parameter for norm in per_step for parameter in norm.parameters()]

    def _state_mask(self, block: Cell, x: Tensor) -> Tensor | None:
        return None if self._carried_dropout else self.dropout_recurrent.mask(x, block.out_channels)

    def _pool(self, block: int, x: Tensor) -> Tensor:
        return F.max_pool2d(x, kernel_size=2) if self.pools[block] else x

    def _head(self, x: Tensor) -> Tensor:
        pad_y, pad_x = (int(side < HEAD_KERNEL) for side in x.shape[2:])
        if pad_y or pad_x:
            x = F.pad(x, (pad_x, pad_x, pad_y, pad_y))
        return self.last_conv(x)

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError, with the remedy, where an image of so many pixels is too small."""
        if min(height, width) < self.smallest_image:
            largest = max(block.smallest_map for block in self._cells)
            raise ValueError(
                f"an image of {height}x{width} px is too small for a first block of kernel "
                f"{self._first_kernel} and stride {self._first_stride}, {sum(self.pools)} poolings, blocks "
                f"that want maps of {largest}x{largest}, which need {self.smallest_image} px; use larger "
                f"images, fewer `pools`, or first_kernel 3 and first_stride 1"
            )


class DevTower(FeedForwardTower):
    """A tower of three narrow blocks, whatever tower_type says, to try things out; 21 px and more."""

    def __init__(self, num_classes: int, **settings: Any) -> None:
        if settings.get("filters") is None:
            settings = {**settings, "filters": [8, 16, 32], "pools": [True] * 3}
        super().__init__(num_classes, **settings)

    __signature__ = inspect.signature(FeedForwardTower)


def _checked_steps(time_steps: int) -> int:
    if time_steps < 1:
        raise ValueError(f"time_steps must be at least 1, got {time_steps}")
    return time_steps
