"""The convolutional gated recurrent unit."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.blocks import get_activation, require_choice
from models.cells.base import NORM_POSITIONS, Cell, CellSpec, State, masked, over_frames
from models.convolution import GateConvs, StateConv, input_conv, state_conv
from models.normalization import normalize


class ConvGRUCell(Cell):
    """One step of the convolutional GRU (Ballas et al. 2016, arXiv:1511.06432, after Cho et al. 2014).

        r = sigmoid(Wr * x + Ur * h)                      all convolutions with a bias
        z = sigmoid(Wz * x + Uz * h)
        c = f(Wc * x + Uc * (r h))                        f activation
        h' = N((1 - z) h + z c)                           N normalization: z = 1 replaces the state

    Differs from the papers, as the original does: f is the tower's activation instead of tanh, and the
    state is normalized. With `thesis_exact` h' = N(z h + z c), the original's rule: it never forgets by
    choice, because one gate scales the old and the new alike.

    Args:
        norm_position: "after": N of the new state, as above; "before": N of what f sees, h' left alone.
        hidden_seed: Fixes hidden_init "random", see Cell.initial_state.
    """

    def __init__(
        self, spec: CellSpec, *, norm_position: str = "after", hidden_seed: int | None = None
    ) -> None:
        super().__init__(spec, hidden_seed=hidden_seed)
        require_choice("norm_position", norm_position, NORM_POSITIONS)
        self.norm_first = norm_position == "before"
        activation = get_activation(spec.activation)
        self.activation = activation.function
        shape = spec.in_channels, spec.out_channels, spec.kernel_size, spec.stride
        self.wr, self.wz, self.wcan = (input_conv(*shape, gain) for gain in (1.0, 1.0, activation.gain))
        self.ur, self.uz, self.ucan = (state_conv(spec.out_channels, spec.kernel_size) for _ in range(3))
        self.norm = spec.make_norm()

    def kernels(self) -> tuple[GateConvs, StateConv]:
        """Of the gates r and z, and of the candidate."""
        return GateConvs(self.ur, self.uz), StateConv(self.ucan.weight, self.ucan.bias)

    def drive(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Wz * x, Wc * x and Wr * x."""
        z, c = GateConvs(self.wz, self.wcan)(x)
        return z, c, self.wr(x)

    def drives(self, frames: Sequence[Tensor], dead_start: bool) -> list[Any]:
        written = over_frames(GateConvs(self.wz, self.wcan), frames)
        resets: list[Tensor | None] = [None] if dead_start else []
        resets.extend(over_frames(self.wr, frames[1:] if dead_start else frames))
        return [(*drives, reset) for drives, reset in zip(written, resets, strict=True)]

    def step(
        self,
        drive: tuple[Tensor, Tensor, Tensor | None],
        state: State,
        t: int,
        kernels: tuple[GateConvs, StateConv],
        mask: Tensor | None = None,
        last: bool = False,
    ) -> tuple[Tensor, State]:
        of_gates, of_candidate = kernels
        drive_z, drive_c, drive_r = drive
        if state is None:
            state = self.first_state(drive)
        if state is None:  # h = 0: the reset gate has nothing to reset
            _, bias_z = of_gates.of_zeros(drive_z)
            z = torch.sigmoid(drive_z + bias_z)
            h = z * self._candidate(drive_c + of_candidate.of_zeros(drive_c), t)
        else:
            assert isinstance(state, Tensor)
            assert drive_r is not None
            read = masked(state, mask)
            r, z = (gate.sigmoid_() for gate in of_gates.plus(read, drive_r, drive_z))
            c = self._candidate(of_candidate(r * read).add_(drive_c), t)
            h = z * (state + c) if self.thesis_exact else torch.lerp(state.to(c.dtype), c, z)
        if not self.norm_first:
            h = normalize(self.norm, h, t)
        return h, h

    def _candidate(self, x: Tensor, t: int) -> Tensor:
        return self.activation(normalize(self.norm, x, t) if self.norm_first else x)
