"""The linear convolution in front of a circuit whose drive must have the state's shape."""

import torch
from torch import Tensor, nn

from models.cells.base import Cell, CellSpec
from models.convolution import input_conv


class PreconvCell(Cell):
    """A cell whose drive is Conv(x), or x itself where do_preconv is off and the shapes agree already."""

    allowed_hidden_inits = ("zero", "identity", "random")
    preconv_name = "conv"

    def __init__(self, spec: CellSpec, hidden_init: str = "zero", hidden_seed: int | None = None) -> None:
        super().__init__(spec, hidden_init, hidden_seed)
        preconv: nn.Module = nn.Identity()
        if spec.do_preconv:
            preconv = input_conv(
                spec.in_channels, spec.out_channels, spec.preconv_kernel, spec.stride, gain=1.0
            )
        elif spec.in_channels != spec.out_channels or spec.stride != 1:
            raise ValueError(
                f"do_preconv=False leaves the input as it is, so in_channels ({spec.in_channels}) must "
                f"equal out_channels ({spec.out_channels}) and stride ({spec.stride}) must be 1; "
                f"set do_preconv=True"
            )
        self.add_module(self.preconv_name, preconv)

    def drive(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.preconv_name)(x)


def chronos_bias(channels: int, time_steps: int) -> Tensor:
    """log U(1, T - 1) per channel: time constants from one step to the whole run (arXiv:1804.11188)."""
    return torch.empty(channels).uniform_(1.0, max(time_steps - 1.0, 1.0)).log_()
