"""The convolutional Elman network."""

from torch import Tensor

from models.blocks import (
    conv_of_zeros,
    get_activation,
    init_input_conv,
    init_state_conv,
    make_conv,
    make_norm,
)
from models.cells.base import Cell, CellSpec, State


class ConvRNNCell(Cell):
    """One step of a convolutional Elman network.

        h_t = N(z(Wx * x_t + bx + Wh * h_{t-1} + bh))           z activation, N normalization

    Differs from the usual form, as the original does: N comes after z, so the normalized map is the state.
    """

    def __init__(self, spec: CellSpec) -> None:
        super().__init__(spec)
        self.activation = get_activation(spec.activation).function
        self.x2h = make_conv(spec.in_channels, spec.out_channels, spec.kernel_size, spec.stride)
        self.h2h = make_conv(spec.out_channels, spec.out_channels, spec.kernel_size)
        self.norm = make_norm(spec.normalization, spec.out_channels)
        init_input_conv(self.x2h, get_activation(spec.activation).gain)
        init_state_conv(self.h2h)

    def drive(self, x: Tensor) -> Tensor:
        return self.x2h(x)

    def step(self, drive: Tensor, state: State, t: int) -> tuple[Tensor, State]:
        if state is None:
            state = self.first_state(drive)
        from_state = conv_of_zeros(self.h2h, drive) if state is None else self.h2h(state)
        h = self.norm(self.activation(drive + from_state))
        return h, h
