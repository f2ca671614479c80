"""The feed-forward block, as a cell without memory."""

from typing import Any

from torch import Tensor

from models.blocks import get_activation
from models.cells.base import Cell, CellSpec, State
from models.convolution import input_conv
from models.normalization import PER_STEP, make_norm


class ConvCell(Cell):
    """output = z(N(W * x + b)), whatever the state and t.          z activation, N normalization

    It normalizes before its activation; the state it returns is None. With "batchnorm_per_step" it has one
    batch norm, because it has one step.
    """

    recurrent = False

    def __init__(self, spec: CellSpec) -> None:
        super().__init__(spec)
        activation = get_activation(spec.activation)
        self.activation = activation.function
        self.conv = input_conv(
            spec.in_channels, spec.out_channels, spec.kernel_size, spec.stride, activation.gain
        )
        normalization = "batchnorm" if spec.normalization == PER_STEP else spec.normalization
        self.norm = make_norm(normalization, spec.out_channels)

    def drive(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.activation(self.norm(y).to(y.dtype))

    def step(
        self,
        drive: Tensor,
        state: State,
        t: int,
        kernels: Any = None,
        mask: Tensor | None = None,
        last: bool = False,
    ) -> tuple[Tensor, State]:
        return drive, None
