"""The feedback gated recurrent unit, built on serrelabmodels' circuit."""

import torch
from serrelabmodels.layers.fgru_cell import fGRUCell
from serrelabmodels.utils.pt_utils import Conv2dSamePadding, conv2d_same_padding
from torch import Tensor, nn

from models.blocks import make_norm, require_choice
from models.cells.base import CellSpec, State
from models.cells.preconv import PreconvCell, chronos_bias

ATTENTIONS = ("gala", "se", "none")


class SmallMapConv(Conv2dSamePadding):
    """The library's reflecting convolution; on maps too small to reflect it repeats the border instead."""

    def forward(self, x: Tensor) -> Tensor:
        reflects = min(x.shape[2:]) > self.kernel_size[0] // 2
        return conv2d_same_padding(
            x, self.weight, self.bias, padding_mode="reflect" if reflects else "replicate"
        )


class FGRUCircuit(fGRUCell):
    """serrelabmodels' fGRUCell with any normalization, a bias that survives "none", and torch's generator."""

    def __init__(self, channels: int, kernel_size: int, normalization: str, time_steps: int, attention: str):
        # gate_bias_init: the library's own "chronos" draws from NumPy's global generator.
        super().__init__(
            channels,
            channels,
            kernel_size,
            attention=None if attention == "none" else attention,
            normalization_fgru=None,
            normalization_gate=None,
            gate_bias_init="ones",
        )
        # The library's forward drops norm and gate bias together where these are None.
        self.normalization_fgru = self.normalization_gate = normalization
        for name in ("bn_g1", "bn_c1", "bn_g2", "bn_c2"):
            setattr(self, name, make_norm(normalization, channels, weight=0.1))
        with torch.no_grad():
            if normalization == "none":  # the size that a scale of 0.1 would give c1 and c2
                self.conv_c1_w.mul_(0.1)
                self.conv_c2_w.mul_(0.1)
            bias = chronos_bias(channels, time_steps).view(channels, 1, 1)
            self.conv_g1_b.copy_(bias)
            self.conv_g2_b.copy_(-bias)
        if attention == "gala":
            self._pad_saliency_on_small_maps()

    def _pad_saliency_on_small_maps(self) -> None:
        layers: nn.Sequential = self.attention.sa.attention
        for name, layer in layers.named_children():
            if isinstance(layer, Conv2dSamePadding):
                small = SmallMapConv(layer.in_channels, layer.out_channels, layer.kernel_size)
                small.weight, small.bias = layer.weight, layer.bias
                setattr(layers, name, small)

    def forward(self, drive: Tensor, h: Tensor) -> Tensor:
        if min(drive.shape[2:]) <= self.kernel_size // 2:
            raise ValueError(
                f"fgru pads by reflection, so a map must be larger than kernel_size // 2 = "
                f"{self.kernel_size // 2}, got {drive.shape[2]}x{drive.shape[3]}; "
                f"pool less or use larger images"
            )
        return super().forward(drive, h)[0]


class FGRUCell(PreconvCell):
    """One step of the fGRU in its horizontal form (Linsley et al. 2020, arXiv:2010.15314).

        x  = Conv(x_t)                                            linear, see PreconvCell
        g1 = sigmoid(N(A(h) + b1))                                A attention, which part of h inhibits
        c1 = N(W_S * (g1 h))
        s  = relu(x - relu((alpha h + mu) c1))                    suppression
        g2 = sigmoid(N(U * s + b2))                               g2 = 1 replaces the state
        c2 = N(W_F * s)
        h' = (1 - g2) h + g2 relu(kappa (s + c2) + omega s c2)    facilitation

    A is GALA (arXiv:1805.08819): a channel path times a spatial path, two layers each, relu after both.
    The first h is x. Convolutions of the state pad by reflection. b1 = log U(1, T - 1), b2 = -b1; an
    instance or batch norm cancels them, as in the library.

    Differs from serrelabmodels: N may be any normalization, batchnorm keeps running statistics (there,
    a prediction in eval depends on the rest of the batch), and "none" keeps the gates' biases. The
    original's towers named "fgru" were hGRUs: load their weights into cell_type "hgru".

    Args:
        attention: "gala", "se" (the channel path alone) or "none" (a 1x1 convolution).
    """

    def __init__(self, spec: CellSpec, attention: str = "gala") -> None:
        super().__init__(spec, hidden_init="identity")
        require_choice("attention", attention, ATTENTIONS)
        if attention != "none" and spec.out_channels < 2:
            raise ValueError(f"attention {attention!r} halves the channels: out_channels must be at least 2")
        self.fgru = FGRUCircuit(
            spec.out_channels,
            spec.kernel_size,
            spec.normalization or "instancenorm",
            spec.time_steps,
            attention,
        )

    def step(self, drive: Tensor, state: State, t: int) -> tuple[Tensor, State]:
        h = self.fgru(drive, self.initial_state(drive) if state is None else state)
        return h, h
