"""What every cell is: built from one CellSpec, called cell(x, state, t) -> (output, state)."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.blocks import require_choice
from models.convolution import is_small
from models.normalization import make_norm, smallest_map

State = Tensor | tuple[Tensor, Tensor] | None

HIDDEN_INITS = ("zero", "identity", "random")
NORM_POSITIONS = ("after", "before")


@dataclass(frozen=True)
class CellSpec:
    """The settings that all cells share; a cell without a use for one ignores it."""

    in_channels: int
    """Channels of the feed-forward input."""

    out_channels: int
    """Channels of the state and of the output."""

    kernel_size: int = 3
    """Side of the convolutions over x and over the state, in feature-map cells."""

    stride: int = 1
    """Stride of the convolution over x. Above 1 it is unpadded, see convolution.make_conv."""

    activation: str = "relu"
    """Key of blocks.ACTIVATIONS. hgru and fgru keep the rectification that defines them."""

    normalization: str | None = None
    """Key of normalization.NORMALIZATIONS; None is the cell's own ("instancenorm" in fgru, else "none")."""

    time_steps: int = 1
    """Steps the cell is trained for: the range of the initial time constants of hgru and fgru, and the
    number of batch norms of "batchnorm_per_step"."""

    do_preconv: bool = True
    """Give reciprocal, hgru and fgru a linear convolution that makes out_channels of in_channels."""

    preconv_kernel: int = 1
    """Side of that convolution."""

    hidden_init: str | None = None
    """State before the first frame, see Cell.initial_state; None is the cell's default."""

    thesis_exact: bool = False
    """The original's numbers where ours are corrected; each cell says which."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "time_steps", "preconv_kernel"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def make_norm(self, weight: float = 1.0, default: str = "none") -> nn.Module:
        """The normalization of one of the cell's maps."""
        return make_norm(self.normalization or default, self.out_channels, weight, self.time_steps)


class Cell(nn.Module):
    """One layer that may remember.

    A call is three parts, so that a caller who unrolls it over time can do each as rarely as possible:

        kernels()                       what all steps of one forward pass share: stacked weights
        drive(x)                        everything that depends on the input alone; x may hold the
                                        images of many steps, one after the other
        step(drive, state, t, kernels)  the rest

    Keyword-only arguments of a cell's constructor are its options: `options()` names them.
    """

    recurrent: ClassVar[bool] = True
    """Whether the output depends on earlier frames."""

    allowed_hidden_inits: ClassVar[tuple[str, ...]] = ("zero", "random")

    def __init__(self, spec: CellSpec, hidden_init: str = "zero", hidden_seed: int | None = None) -> None:
        super().__init__()
        self.out_channels = spec.out_channels
        self.thesis_exact = spec.thesis_exact
        self.hidden_init = spec.hidden_init or hidden_init
        self.hidden_seed = hidden_seed
        self.smallest_map = smallest_map(spec.normalization, spec.out_channels)
        """Side of the smallest map that the cell can work on."""
        require_choice("hidden_init", self.hidden_init, HIDDEN_INITS)
        if self.hidden_init not in self.allowed_hidden_inits:
            raise ValueError(
                f"hidden_init {self.hidden_init!r} needs an input of the state's shape, which only "
                f"reciprocal, hgru and fgru have; this cell allows: {', '.join(self.allowed_hidden_inits)}"
            )
        if hidden_seed is not None and self.hidden_init != "random":
            raise ValueError(
                f"hidden_seed seeds hidden_init 'random', but hidden_init is {self.hidden_init!r}"
            )

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the settings that this cell has beyond CellSpec."""
        parameters = inspect.signature(cls).parameters.values()
        return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)

    def kernels(self) -> Any:
        """What the steps of one forward pass share; goes into `step` as it is."""
        return None

    def drive(self, x: Tensor) -> Any:
        """The part of a call that needs only x, (N, in, Y, X): one map or a tuple of maps."""
        raise NotImplementedError

    def drives(self, frames: Sequence[Tensor], dead_start: bool) -> list[Any]:
        """The drives of consecutive frames, each (N, in, Y, X).

        With `dead_start` the first frame meets a state of zeros, and what only acts through the state is
        left out there.
        """
        return over_frames(self.drive, frames)

    def step(
        self, drive: Any, state: State, t: int, kernels: Any, mask: Tensor | None = None, last: bool = False
    ) -> tuple[Tensor, State]:
        """(output, state) after frame t; the output and each half of a state are (N, out, Y, X).

        Args:
            drive: What `drive` made of the frame.
            state: What the previous step returned; None at the first one.
            kernels: What `kernels` returned.
            mask: Factor, (N, C, 1, 1), of the state where convolutions read it (dropout), not where it is
                carried on.
            last: Nobody will read the state, only the output: a cell may leave dead parts of it None.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, state: State = None, t: int = 0) -> tuple[Tensor, State]:
        """(output, state) of frame t; `state` is what the previous frame returned, None at the first."""
        return self.step(self.drive(x), state, t, self.kernels())

    def initial_state(self, drive: Any) -> Tensor:
        """The state before the first frame, or each half of it where a cell has two.

        "zero"; "identity", the drive itself; or "random", drawn from torch's generator anew for every
        batch (the original hGRU does: its logits then differ from call to call, in eval too). With a
        `hidden_seed` every image of every batch starts from the same random map.
        """
        drive = drive[0] if isinstance(drive, tuple) else drive
        if self.hidden_init == "identity":
            return drive
        n, (y, x) = drive.shape[0], drive.shape[2:]
        if self.hidden_init == "zero":
            return drive.new_zeros(n, self.out_channels, y, x)
        if self.hidden_seed is None:
            return nn.init.xavier_normal_(drive.new_empty(n, self.out_channels, y, x))
        generator = torch.Generator().manual_seed(self.hidden_seed)
        noise = torch.randn(1, self.out_channels, y, x, generator=generator)
        deviation = math.sqrt(2.0 / ((1 + self.out_channels) * y * x))  # xavier_normal_ of one image
        return (noise * deviation).to(drive).expand(n, -1, -1, -1)

    def first_state(self, drive: Any) -> Tensor | None:
        """initial_state, or None for zeros where a cell knows what its convolutions make of zeros."""
        return None if self.hidden_init == "zero" else self.initial_state(drive)


def over_frames(drive: Callable[[Tensor], Any], frames: Sequence[Tensor]) -> list[Any]:
    """`drive`, a map or a tuple of maps, of every frame, computed together where the maps are small."""
    if len(frames) > 1 and (is_small(frames[0]) or frames[0].is_cuda):
        joined, images = drive(torch.cat(list(frames))), frames[0].shape[0]
        if isinstance(joined, tuple):
            return list(zip(*(part.split(images) for part in joined), strict=True))
        return list(joined.split(images))
    return [drive(frame) for frame in frames]


def masked(state: Tensor, mask: Tensor | None) -> Tensor:
    """The state as convolutions read it under dropout."""
    return state if mask is None else state * mask.to(state.dtype)
