"""The convolutional gated recurrent unit."""

import torch
from torch import Tensor, nn

from models.blocks import (
    conv_of_zeros,
    fused_conv,
    get_activation,
    init_input_conv,
    init_state_conv,
    make_conv,
    make_norm,
)
from models.cells.base import Cell, CellSpec, State


class ConvGRUCell(Cell):
    """One step of the convolutional GRU (Ballas et al. 2016, arXiv:1511.06432, after Cho et al. 2014).

        r = sigmoid(Wr * x + Ur * h)                      all convolutions with a bias
        z = sigmoid(Wz * x + Uz * h)
        c = f(Wc * x + Uc * (r h))                        f activation
        h' = N((1 - z) h + z c)                           N normalization: z = 1 replaces the state

    Differs from the papers, as the original does: f is the tower's activation instead of tanh, and the
    state is normalized. With `thesis_exact` h' = N(z h + z c), the original's rule: it never forgets by
    choice, because one gate scales the old and the new alike.
    """

    def __init__(self, spec: CellSpec) -> None:
        super().__init__(spec)
        self.activation = get_activation(spec.activation).function
        self.thesis_exact = spec.thesis_exact
        gain = get_activation(spec.activation).gain
        self.wr, self.wz, self.wcan = _input_conv(spec, 1.0), _input_conv(spec, 1.0), _input_conv(spec, gain)
        self.ur, self.uz, self.ucan = _state_conv(spec), _state_conv(spec), _state_conv(spec)
        self.norm = make_norm(spec.normalization, spec.out_channels)

    def drive(self, x: Tensor) -> Tensor:
        """Wr * x, Wz * x and Wc * x, stacked along channels in this order."""
        return fused_conv([self.wr, self.wz, self.wcan], x)

    def step(self, drive: Tensor, state: State, t: int) -> tuple[Tensor, State]:
        c_channels = self.out_channels
        if state is None:
            state = self.first_state(drive)
        if state is None:  # h = 0: the reset gate has nothing to reset
            _, drive_z, drive_c = drive.split(c_channels, dim=1)
            z = torch.sigmoid(drive_z + conv_of_zeros(self.uz, drive))
            h = z * self.activation(drive_c + conv_of_zeros(self.ucan, drive))
        else:
            assert isinstance(state, Tensor)
            gates = torch.sigmoid(drive[:, : 2 * c_channels] + fused_conv([self.ur, self.uz], state))
            r, z = gates.chunk(2, dim=1)
            c = self.activation(drive[:, 2 * c_channels :] + self.ucan(r * state))
            h = z * (state + c) if self.thesis_exact else state + z * (c - state)
        h = self.norm(h)
        return h, h


def _input_conv(spec: CellSpec, gain: float) -> nn.Conv2d:
    conv = make_conv(spec.in_channels, spec.out_channels, spec.kernel_size, spec.stride)
    init_input_conv(conv, gain)
    return conv


def _state_conv(spec: CellSpec) -> nn.Conv2d:
    conv = make_conv(spec.out_channels, spec.out_channels, spec.kernel_size)
    init_state_conv(conv)
    return conv
