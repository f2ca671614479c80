"""The feedback gated recurrent unit, on the parameters of serrelabmodels' circuit."""

import inspect
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from serrelabmodels.layers.fgru_cell import fGRUCell
from torch import Tensor, nn

from models.blocks import require_choice
from models.cells.base import CellSpec, State, masked
from models.cells.hgru import GATE_BIASES
from models.cells.preconv import PreconvCell, chronos_bias
from models.convolution import StateConv
from models.normalization import keeps_statistics, normalize, smallest_map

ATTENTIONS = ("gala", "se", "none")


class FGRUKernels(NamedTuple):
    """The circuit's convolutions, as all steps of one forward pass share them."""

    attention: tuple[tuple[StateConv, ...], ...]
    """The layers of each path of the attention; a single 1x1 convolution where there is none."""

    c1: StateConv
    g2: StateConv
    c2: StateConv


class FGRUCircuit(fGRUCell):
    """serrelabmodels' fGRUCell with any normalization, all of its flags, and torch's generator.

    FGRUCell says what the options are; CIRCUIT_OPTIONS names them.
    """

    def __init__(
        self,
        spec: CellSpec,
        *,
        attention: str = "gala",
        attention_layers: int = 2,
        gate_bias: str = "before_norm",
        force_alpha_divisive: bool = False,
        force_non_negativity: bool = True,
        multiplicative_excitation: bool = True,
    ) -> None:
        channels, normalization = spec.out_channels, spec.normalization or "instancenorm"
        require_choice("attention", attention, ATTENTIONS)
        require_choice("gate_bias", gate_bias, GATE_BIASES)
        if attention_layers < 1:
            raise ValueError(f"attention_layers must be at least 1, got {attention_layers}")
        narrowest = 2 ** (attention_layers - 1 if attention == "gala" else attention_layers // 2)
        if attention != "none" and channels < narrowest:
            raise ValueError(
                f"attention {attention!r} of {attention_layers} layers halves the channels: "
                f"out_channels must be at least {narrowest}, got {channels}"
            )
        # gate_bias_init: the library's own "chronos" draws from NumPy's global generator.
        super().__init__(
            channels,
            channels,
            spec.kernel_size,
            attention=None if attention == "none" else attention,
            attention_layers=attention_layers,
            normalization_fgru=None,
            normalization_gate=None,
            gate_bias_init="ones",
            force_alpha_divisive=force_alpha_divisive,
            force_non_negativity=force_non_negativity,
            multiplicative_excitation=multiplicative_excitation,
        )
        self.bias_last = gate_bias == "after_norm"
        for name in ("bn_g1", "bn_c1", "bn_g2", "bn_c2"):
            setattr(self, name, spec.make_norm(0.1, default="instancenorm"))
        if not multiplicative_excitation:
            del self.omega
        with torch.no_grad():
            if normalization == "none":  # the size that a scale of 0.1 would give c1 and c2
                self.conv_c1_w.mul_(0.1)
                self.conv_c2_w.mul_(0.1)
            bias = chronos_bias(channels, spec.time_steps).view(channels, 1, 1)
            self.conv_g1_b.copy_(bias)
            self.conv_g2_b.copy_(-bias)

    def kernels(self) -> FGRUKernels:
        """The weights of one forward pass."""
        if not hasattr(self, "attention"):
            paths: list[tuple[StateConv, ...]] = [(StateConv(self.conv_g1_w),)]
        else:
            modules = (
                [self.attention.se, self.attention.sa] if hasattr(self.attention, "se") else [self.attention]
            )
            paths = [
                tuple(
                    StateConv(m.weight, m.bias, reflect=True)
                    for m in module.attention
                    if hasattr(m, "weight")
                )
                for module in modules
            ]
        return FGRUKernels(
            tuple(paths),
            StateConv(self.conv_c1_w, reflect=True),
            StateConv(self.conv_g2_w),
            StateConv(self.conv_c2_w, reflect=True),
        )

    def forward(
        self,
        drive: Tensor,
        h: Tensor | None,
        t: int = 0,
        kernels: FGRUKernels | None = None,
        mask: Tensor | None = None,
        topdown: bool = False,
    ) -> Tensor:
        """The state after a step from the state h; in the top-down form what is mixed with is the drive.

        Without h from a state of zeros, of which convolutions without a bias make zeros.
        """
        kernels = kernels or self.kernels()
        if min(drive.shape[2:]) <= self.kernel_size // 2:
            raise ValueError(
                f"fgru pads by reflection, so a map must be larger than kernel_size // 2 = "
                f"{self.kernel_size // 2}, got {drive.shape[2]}x{drive.shape[3]}; "
                f"pool less or use larger images"
            )
        if h is None and keeps_statistics(self.bn_g1):  # of the gain, which acts on zeros
            h = drive.new_zeros(drive.shape)
        if h is None:
            inhibition = normalize(self.bn_c1, drive.new_zeros(drive.shape), t) * self.mu
        else:
            read = masked(h, mask)
            g1 = self._gate(self._attention(read, kernels), self.bn_g1, self.conv_g1_b, t)
            c1 = normalize(self.bn_c1, kernels.c1(read * g1), t)
            alpha = torch.sigmoid(self.alpha) if self.force_alpha_divisive else self.alpha
            inhibition = c1 * (alpha * h + self.mu)
        h1 = F.relu(drive - (F.relu(inhibition) if self.force_non_negativity else inhibition))
        g2 = self._gate(kernels.g2(h1), self.bn_g2, self.conv_g2_b, t)
        c2 = normalize(self.bn_c2, kernels.c2(h1), t)
        excitation = self.kappa * (h1 + c2)
        if self.multiplicative_excitation:
            excitation = excitation + self.omega * h1 * c2
        new = F.relu(excitation)
        before = drive if topdown else h
        return g2 * new if before is None else torch.lerp(before.to(new.dtype), new, g2.to(new.dtype))

    def _attention(self, h: Tensor, kernels: FGRUKernels) -> Tensor:
        if not hasattr(self, "attention"):
            return kernels.attention[0][0](h)
        maps = []
        for path in kernels.attention:
            x = h
            for layer in path:
                x = F.relu(layer(x))
            maps.append(x)
        return maps[0] if len(maps) == 1 else maps[0] * maps[1]

    def _gate(self, x: Tensor, norm: nn.Module, bias: Tensor, t: int) -> Tensor:
        bias = bias.to(x.dtype)
        if self.bias_last:
            return torch.sigmoid(normalize(norm, x, t) + bias)
        return torch.sigmoid(normalize(norm, x + bias, t))


CIRCUIT_OPTIONS = tuple(
    p.name
    for p in inspect.signature(FGRUCircuit).parameters.values()
    if p.kind is inspect.Parameter.KEYWORD_ONLY
)
"""Options of an fGRU wherever it is: in a tower's cell or in a gammanet."""


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
    The first h is x. Convolutions of the state pad by reflection. b1 = log U(1, T - 1), b2 = -b1.

    Differs from serrelabmodels: N may be any normalization, batchnorm keeps running statistics (there,
    a prediction in eval depends on the rest of the batch), and "none" keeps the gates' biases. The
    original's towers named "fgru" were hGRUs: load their weights into cell_type "hgru", or set thesis_exact.

    Args:
        attention: "gala", "se" (the channel path alone) or "none" (a 1x1 convolution).
        attention_layers: Depth of each path.
        gate_bias: "before_norm", as above and in the library, where batch and instance norms cancel b1 and
            b2; or "after_norm", g = sigmoid(N(a) + b), where the time constants act.
        force_alpha_divisive: sigmoid(alpha) in place of alpha, so that inhibition can only divide.
        force_non_negativity: The inner relu, so that inhibition can only subtract. The library names these
            three flags and ignores them; its constant behaviour is the default here.
        multiplicative_excitation: The term omega s c2; without it, no omega.
        hidden_seed: Fixes hidden_init "random", see Cell.initial_state.
    """

    def __init__(
        self,
        spec: CellSpec,
        *,
        attention: str = "gala",
        attention_layers: int = 2,
        gate_bias: str = "before_norm",
        force_alpha_divisive: bool = False,
        force_non_negativity: bool = True,
        multiplicative_excitation: bool = True,
        hidden_seed: int | None = None,
    ) -> None:
        super().__init__(spec, "identity", hidden_seed)
        statistics = smallest_map(spec.normalization or "instancenorm", spec.out_channels)
        self.smallest_map = max(statistics, spec.kernel_size // 2 + 1)  # which its padding reflects
        self.fgru = FGRUCircuit(
            spec,
            attention=attention,
            attention_layers=attention_layers,
            gate_bias=gate_bias,
            force_alpha_divisive=force_alpha_divisive,
            force_non_negativity=force_non_negativity,
            multiplicative_excitation=multiplicative_excitation,
        )

    def kernels(self) -> FGRUKernels:
        return self.fgru.kernels()

    def step(
        self,
        drive: Tensor,
        state: State,
        t: int,
        kernels: Any,
        mask: Tensor | None = None,
        last: bool = False,
    ) -> tuple[Tensor, State]:
        h = self.first_state(drive) if state is None else state
        assert not isinstance(h, tuple)
        h = self.fgru(drive, h, t, kernels, mask).to(drive.dtype)
        return h, h
