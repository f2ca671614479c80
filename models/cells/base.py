"""What every cell is: built from one CellSpec, called cell(x, state, t) -> (output, state)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from models.blocks import require_choice

State = Tensor | tuple[Tensor, Tensor] | None

HIDDEN_INITS = ("zero", "identity", "random")


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
    """Stride of the convolution over x. Above 1 it is unpadded, see blocks.make_conv."""

    activation: str = "relu"
    """Key of blocks.ACTIVATIONS. hgru and fgru keep the rectification that defines them."""

    normalization: str | None = None
    """Key of blocks.NORMALIZATIONS; None is the cell's default ("instancenorm" in fgru, else "none")."""

    time_steps: int = 1
    """Steps the cell is trained for: the range of the initial time constants of hgru and fgru."""

    do_preconv: bool = True
    """Give hgru and fgru a linear convolution that makes out_channels of in_channels."""

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


class Cell(nn.Module):
    """One layer that may remember.

    A call is two halves, so that a caller can do the first once for an input that stays the same over
    time: `drive(x)`, everything that depends on the input alone, and `step(drive, state, t)`, the rest.
    """

    recurrent: ClassVar[bool] = True
    """Whether the output depends on earlier frames."""

    allowed_hidden_inits: ClassVar[tuple[str, ...]] = ("zero", "random")

    def __init__(self, spec: CellSpec, hidden_init: str = "zero") -> None:
        super().__init__()
        self.out_channels = spec.out_channels
        self.hidden_init = spec.hidden_init or hidden_init
        require_choice("hidden_init", self.hidden_init, HIDDEN_INITS)
        if self.hidden_init not in self.allowed_hidden_inits:
            raise ValueError(
                f"hidden_init {self.hidden_init!r} needs an input of the state's shape, which only "
                f"hgru and fgru have; this cell allows: {', '.join(self.allowed_hidden_inits)}"
            )

    def drive(self, x: Tensor) -> Tensor:
        """The part of a call that needs only x, (N, in, Y, X); its channels are the cell's own business."""
        raise NotImplementedError

    def step(self, drive: Tensor, state: State, t: int) -> tuple[Tensor, State]:
        raise NotImplementedError

    def forward(self, x: Tensor, state: State = None, t: int = 0) -> tuple[Tensor, State]:
        """(output, state) of frame t; `state` is what the previous frame returned, None at the first."""
        return self.step(self.drive(x), state, t)

    def initial_state(self, drive: Tensor) -> State:
        """The state before the first frame.

        "zero"; "identity", the drive itself; or "random", drawn from torch's generator anew for every
        batch (the original hGRU does: its logits then differ from call to call, in eval too).
        """
        if self.hidden_init == "identity":
            return drive
        state = drive.new_zeros(drive.shape[0], self.out_channels, *drive.shape[2:])
        return nn.init.xavier_normal_(state) if self.hidden_init == "random" else state

    def first_state(self, drive: Tensor) -> State:
        """initial_state, or None for zeros where a cell knows what its convolutions make of zeros."""
        return None if self.hidden_init == "zero" else self.initial_state(drive)
