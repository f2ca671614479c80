"""The unrolled tower: blocks of cells with poolings between them and a convolutional head.

Shape letters: N images, C channels, Y x X feature map, K classes, T time steps, L blocks.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import SpatialDropout, batch_statistics_counted, require_choice
from models.cells import Cell, State, build_cell


class TowerType(NamedTuple):
    filters: list[int]
    """Channels of each block."""

    pools: list[bool]
    """Whether a 2x2 max pooling follows each block."""


# Five poolings each: 224 px -> 109 -> 54 -> 27 -> 13 -> 6 -> the 3x3 map of the head.
TOWER_TYPES: dict[str, TowerType] = {
    "normal": TowerType([64, 128, 256, 256, 512], [True] * 5),
    "more": TowerType(
        [64, 64, 128, 128, 256, 256, 512, 512], [True, False, True, False, True, False, True, True]
    ),
    "wider": TowerType([128, 512, 512, 512, 1024], [True] * 5),
    # The original gives no poolings. After the first block, so that all towers share a stem, and after
    # the last block of each width.
    "deeper": TowerType(
        [64, 64, 64, 128, 128, 256, 256, 512, 512, 512],
        [True, False, True, False, True, False, True, False, False, True],
    ),
}

HEAD_KERNEL = 3


class FeedForwardTower(nn.Module):
    """A feed-forward stack of cells, each with its own memory, shown the same image T times.

    In each time step every block sees what the block below made of the same step (synchronous unrolling,
    no top-down connections). Logits are the 3x3 convolution `last_conv` of the last map, averaged over
    its valid positions: one position on the 3x3 map of a 224 px image, where this is the original's head.
    A map below 3x3 is padded by one zero on each side first. So every image size works that survives the
    poolings; `smallest_image` says which.

    What does not change over time is computed once: the leading blocks without memory (their batch norms
    still count T updates, as if computed T times) and the input convolutions of the first block that
    has one.

    Args:
        num_classes: K.
        tower_type: Key of TOWER_TYPES: channels and poolings.
        cell_type: Key of cells.CELLS. "conv" has no memory: one step, whatever time_steps says.
        activation: Key of blocks.ACTIVATIONS.
        normalization: Key of blocks.NORMALIZATIONS; None means none.
        time_steps: T unless a call asks for another.
        dropout: Probability that a channel of the last map is dropped before the head, the same channels
            in all steps of one forward pass.
        skip_first: Make the first block a plain convolution block. Its map is the largest, so memory
            there costs the most.
        do_preconv: Give hgru and fgru blocks a convolution that makes their channels; see CellSpec.
        preconv_kernel: Side of that convolution.
        cell_kernel: Side of the kernels of every block but the first.
        filters: Channels of each block, instead of the tower type's.
        pools: Poolings of each block, instead of the tower type's; needed where the lengths differ.
        first_kernel: Side of the kernels of the first block. For 32 px images use 3.
        first_stride: Stride of the first block, unpadded if above 1. For 32 px images use 1.
        hidden_init: State before the first step, see Cell.initial_state; None is the cell's default.
        thesis_exact: The original's numbers where a cell corrects them.
        in_channels: Channels of the images.
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
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        filters, self.pools = _widths(tower_type, filters, pools)
        self.time_steps = _checked_steps(time_steps)

        blocks: list[Cell] = []
        for i, (ins, outs) in enumerate(pairwise([in_channels, *filters])):
            plain = i == 0 and skip_first
            try:
                block = build_cell(
                    "conv" if plain else cell_type,
                    ins,
                    outs,
                    kernel_size=first_kernel if i == 0 else cell_kernel,
                    stride=first_stride if i == 0 else 1,
                    activation=activation,
                    normalization=normalization or "none",
                    time_steps=time_steps,
                    do_preconv=do_preconv,
                    preconv_kernel=preconv_kernel,
                    hidden_init=None if plain else hidden_init,
                    thesis_exact=thesis_exact,
                )
            except ValueError as error:
                raise ValueError(f"block {i} of the tower: {error}") from error
            blocks.append(block)
        self.cell_blocks = nn.ModuleList(blocks)
        self.dropout = SpatialDropout(dropout)
        self.last_conv = nn.Conv2d(filters[-1], num_classes, HEAD_KERNEL)
        # Over fan-in, unlike the blocks: logits start at the size of the features for any number of classes.
        nn.init.normal_(self.last_conv.weight, 0.0, 1.0 / math.sqrt(filters[-1] * HEAD_KERNEL**2))
        assert self.last_conv.bias is not None
        nn.init.zeros_(self.last_conv.bias)

        self._first_kernel, self._first_stride = first_kernel, first_stride
        self._constant_blocks = next((i for i, b in enumerate(blocks) if b.recurrent), len(blocks))

    @property
    def stateless(self) -> bool:
        """Whether no block has a memory, so that one time step says all."""
        return self._constant_blocks == len(self.cell_blocks)

    @property
    def smallest_image(self) -> int:
        """Side in pixels of the smallest square image that survives the poolings."""
        side = 1
        for pool in reversed(self.pools):
            side *= 2 if pool else 1
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
        self._check_size(x)
        steps = 1 if self.stateless else _checked_steps(self.time_steps if time_steps is None else time_steps)

        constant_hidden: list[State] = []
        for i in range(self._constant_blocks):
            with batch_statistics_counted(self.cell_blocks[i], steps):
                x, _ = self.cell_blocks[i](x)
            constant_hidden.append(x)
            x = self._pool(i, x)

        blocks: list[Cell] = list(self.cell_blocks[self._constant_blocks :])  # type: ignore[arg-type]
        first_drive = blocks[0].drive(x) if blocks else None
        states: list[State] = [None] * len(blocks)
        mask: Tensor | None = None
        logits: list[Tensor] = []
        hidden: list[list[State]] = []
        for t in range(steps):
            feature = x
            for j, block in enumerate(blocks):
                drive = block.drive(feature) if j or first_drive is None else first_drive
                if steps == 1:
                    # Not None, for which cells skip their state's convolutions: with a single step those
                    # would get no gradient at all, and DDP waits for one.
                    states[j] = block.initial_state(drive)
                feature, states[j] = block.step(drive, states[j], t)
                feature = self._pool(self._constant_blocks + j, feature)
            if return_all or t == steps - 1:
                if mask is None:
                    mask = self.dropout.mask(feature)
                logits.append(self._head(self.dropout(feature, mask)))
                if return_hidden:
                    hidden.append([*constant_hidden, *states])

        if return_all:
            return (logits, hidden) if return_hidden else logits
        return (logits[-1], hidden[-1]) if return_hidden else logits[-1]

    def _pool(self, block: int, x: Tensor) -> Tensor:
        return F.max_pool2d(x, kernel_size=2) if self.pools[block] else x

    def _head(self, x: Tensor) -> Tensor:
        pad_y, pad_x = (int(side < HEAD_KERNEL) for side in x.shape[2:])
        if pad_y or pad_x:
            x = F.pad(x, (pad_x, pad_x, pad_y, pad_y))
        return self.last_conv(x).mean(dim=(2, 3))

    def _check_size(self, x: Tensor) -> None:
        if x.ndim != 4:
            raise ValueError(f"images must be (N, C, Y, X), got shape {tuple(x.shape)}")
        if min(x.shape[2:]) < self.smallest_image:
            raise ValueError(
                f"an image of {x.shape[2]}x{x.shape[3]} px is too small for a first block of kernel "
                f"{self._first_kernel} and stride {self._first_stride} and {sum(self.pools)} poolings, which "
                f"need {self.smallest_image} px; use larger images, fewer `pools`, or first_kernel 3 and "
                f"first_stride 1"
            )


def _widths(
    tower_type: str, filters: Sequence[int] | None, pools: Sequence[bool] | None
) -> tuple[list[int], list[bool]]:
    """Filters and poolings of every block, as the tower type or its overrides give them."""
    require_choice("tower_type", tower_type, TOWER_TYPES)
    standard = TOWER_TYPES[tower_type]
    filters = list(standard.filters if filters is None else filters)
    if not filters:
        raise ValueError("filters must name at least one block, got an empty list")
    if min(filters) < 1:
        raise ValueError(f"filters must all be at least 1, got {filters}")
    if pools is None and len(filters) != len(standard.pools):
        raise ValueError(
            f"filters has {len(filters)} blocks and tower_type {tower_type!r} has {len(standard.pools)}: "
            f"give pools too, one true or false per block, got none"
        )
    pools = list(standard.pools if pools is None else pools)
    if len(pools) != len(filters):
        raise ValueError(
            f"pools must have one entry per block: {len(filters)} filters {filters}, "
            f"{len(pools)} pools {pools}"
        )
    return filters, [bool(pool) for pool in pools]


def _checked_steps(time_steps: int) -> int:
    if time_steps < 1:
        raise ValueError(f"time_steps must be at least 1, got {time_steps}")
    return time_steps
