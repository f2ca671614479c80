"""The convolutional Elman network."""

from torch import Tensor

from models.blocks import get_activation, require_choice
from models.cells.base import NORM_POSITIONS, Cell, CellSpec, State, masked
from models.convolution import StateConv, input_conv, state_conv
from models.normalization import normalize


class ConvRNNCell(Cell):
    """One step of a convolutional Elman network (after Elman 1990, doi:10.1207/s15516709cog1402_1).

        h_t = N(z(Wx * x_t + bx + Wh * h_{t-1} + bh))           z activation, N normalization

    Differs from the usual form, as the original does: N comes after z, so the normalized map is the state.

    Args:
        norm_position: "after" z, or "before" it: h_t = z(N(...)).
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
        self.x2h = input_conv(
            spec.in_channels, spec.out_channels, spec.kernel_size, spec.stride, activation.gain
        )
        self.h2h = state_conv(spec.out_channels, spec.kernel_size)
        self.norm = spec.make_norm()

    def kernels(self) -> StateConv:
        return StateConv(self.h2h.weight, self.h2h.bias)

    def drive(self, x: Tensor) -> Tensor:
        return self.x2h(x)

    def step(
        self,
        drive: Tensor,
        state: State,
        t: int,
        kernels: StateConv,
        mask: Tensor | None = None,
        last: bool = False,
    ) -> tuple[Tensor, State]:
        if state is None:
            state = self.first_state(drive)
        if state is None:
            h = drive + kernels.of_zeros(drive)
        else:
            assert isinstance(state, Tensor)
            h = kernels(masked(state, mask)).add_(drive)
        if self.norm_first:
            h = self.activation(normalize(self.norm, h, t))
        else:
            h = normalize(self.norm, self.activation(h), t)
        return h, h
