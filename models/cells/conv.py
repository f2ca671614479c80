"""The feed-forward block, as a cell without memory."""

from torch import Tensor

from models.blocks import get_activation, init_input_conv, make_conv, make_norm
from models.cells.base import Cell, CellSpec, State


class ConvCell(Cell):
    """output = z(N(W * x + b)), whatever the state and t.          z activation, N normalization

    The only cell that normalizes before its activation; the state it returns is None.
    """

    recurrent = False

    def __init__(self, spec: CellSpec) -> None:
        super().__init__(spec)
        self.activation = get_activation(spec.activation).function
        self.conv = make_conv(spec.in_channels, spec.out_channels, spec.kernel_size, spec.stride)
        self.norm = make_norm(spec.normalization, spec.out_channels)
        init_input_conv(self.conv, get_activation(spec.activation).gain)

    def drive(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))

    def step(self, drive: Tensor, state: State, t: int) -> tuple[Tensor, State]:
        return drive, None
