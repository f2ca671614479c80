"""The horizontal gated recurrent unit, on the parameters of serrelabmodels' circuit."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from serrelabmodels.layers.hgru_cell import hGRUCell
from torch import Tensor, nn

from models.blocks import require_choice
from models.cells.base import CellSpec, State, masked
from models.cells.preconv import PreconvCell, chronos_bias
from models.convolution import StateConv
from models.normalization import PER_STEP, normalize

SYMMETRIES = ("gradient", "parametrized", "free")
GATE_BIASES = ("before_norm", "after_norm")


class _SymmetricGradient(torch.autograd.Function):
    """The kernel as it is, whose gradient is made symmetric in its channels."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor) -> Tensor:
        return kernel.view_as(kernel)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return (gradient + gradient.transpose(0, 1)) / 2


class HGRUKernels(NamedTuple):
    """The circuit's convolutions, as all steps of one forward pass share them."""

    u1: StateConv
    inhibition: StateConv
    u2: StateConv
    excitation: StateConv


class HGRUCircuit(hGRUCell):
    """serrelabmodels' hGRUCell with its first state, its kernels, its norms and its norm-free path mended."""

    bn: nn.ModuleList

    def __init__(
        self,
        spec: CellSpec,
        symmetry: str = "gradient",
        shared_kernel: bool = False,
        gate_bias: str = "before_norm",
    ) -> None:
        channels, time_steps = spec.out_channels, spec.time_steps
        normalized = (spec.normalization or "none") != "none"
        # An odd size for the library's padding, which is not used.
        super().__init__(channels, channels, spec.kernel_size, batchnorm=normalized, timesteps=time_steps)
        self._statistics = spec.normalization in ("batchnorm", PER_STEP)
        self.symmetry, self.bias_last = symmetry, gate_bias == "after_norm" and normalized
        if normalized:
            self.bn = nn.ModuleList(spec.make_norm(weight=0.1) for _ in range(4))
        else:
            nn.init.ones_(self.n)
        if shared_kernel:
            del self.w_gate_exc
        for kernel in self._weights:
            kernel._backward_hooks = None  # the library's: copies, pickles and loaded weights would lose them
        if not spec.thesis_exact:
            self._reset_time_constants(channels, time_steps)
            if symmetry != "free":
                self._make_kernels_symmetric()

    @property
    def _weights(self) -> list[nn.Parameter]:
        return [getattr(self, name) for name in ("w_gate_inh", "w_gate_exc") if hasattr(self, name)]

    @torch.no_grad()
    def _reset_time_constants(self, channels: int, time_steps: int) -> None:
        # The library draws U(1, 7) for every T and discards the logarithm.
        bias = chronos_bias(channels, time_steps)
        self.u1_gate.bias.copy_(bias)
        self.u2_gate.bias.copy_(-bias)

    @torch.no_grad()
    def _make_kernels_symmetric(self) -> None:
        # The library symmetrizes gradients only, so its kernels keep the asymmetry they start with.
        # sqrt(2) instead of 2 keeps the size of the weights.
        for kernel in self._weights:
            kernel.copy_((kernel + kernel.transpose(0, 1)) / 2**0.5)

    def kernels(self) -> HGRUKernels:
        """The weights of one forward pass; where biases come after the norm, without them."""
        weights: list[Tensor] = list(self._weights)
        if self.symmetry == "gradient":
            weights = [_SymmetricGradient.apply(weight) for weight in weights]
        elif self.symmetry == "parametrized":
            weights = [(weight + weight.transpose(0, 1)) / 2 for weight in weights]
        bias1, bias2 = (None, None) if self.bias_last else (self.u1_gate.bias, self.u2_gate.bias)
        inhibition = StateConv(weights[0])
        return HGRUKernels(
            StateConv(self.u1_gate.weight, bias1),
            inhibition,
            StateConv(self.u2_gate.weight, bias2),
            StateConv(weights[1]) if len(weights) > 1 else inhibition,
        )

    def forward(self, drive: Tensor, h2: Tensor, t: int, kernels: HGRUKernels, mask: Tensor | None) -> Tensor:
        """The state after a step from the state h2; `mask` is the dropout of what convolutions read."""
        if not self.batchnorm:
            return self._norm_free(drive, h2, t, kernels, mask)
        read = masked(h2, mask)
        g1 = self._gate(kernels.u1(read), 0, self.u1_gate.bias, t)
        c1 = normalize(self.bn[1], kernels.inhibition(read * g1), t)
        h1 = F.relu(drive - F.relu(c1 * (self.alpha * h2 + self.mu)))
        g2 = self._gate(kernels.u2(h1), 2, self.u2_gate.bias, t)
        c2 = normalize(self.bn[3], kernels.excitation(h1), t)
        new = F.relu(self.kappa * h1 + c2 * (self.gamma + self.w * h1))
        return torch.lerp(h2.to(new.dtype), new, g2.to(new.dtype))

    def _gate(self, x: Tensor, norm: int, bias: Tensor, t: int) -> Tensor:
        x = normalize(self.bn[norm], x, t)
        return torch.sigmoid(x + bias.to(x.dtype).view(-1, 1, 1) if self.bias_last else x)

    def _norm_free(
        self, drive: Tensor, h2: Tensor, t: int, kernels: HGRUKernels, mask: Tensor | None
    ) -> Tensor:
        read = masked(h2, mask)
        c1 = kernels.inhibition(read * torch.sigmoid(kernels.u1(read)))
        h1 = torch.tanh(drive - c1 * (self.alpha * h2 + self.mu))
        g2 = torch.sigmoid(kernels.u2(h1))
        c2 = kernels.excitation(h1)
        new = torch.tanh(self.kappa * h1 + c2 * (self.gamma + self.w * h1))
        return self.n[min(t, len(self.n) - 1)] * torch.lerp(h2.to(new.dtype), new, g2.to(new.dtype))

    def from_zeros(self, drive: Tensor, t: int, kernels: HGRUKernels) -> Tensor:
        """forward from a state of zeros, of which no convolution makes anything but its bias.

        So c1 is constant in each channel, and the gain acts on zeros: it is left out but for its statistics.
        """
        if not self.batchnorm:
            h1 = torch.tanh(drive)
            g2, c2 = torch.sigmoid(kernels.u2(h1)), kernels.excitation(h1)
            new = torch.tanh(self.kappa * h1 + c2 * (self.gamma + self.w * h1))
            return self.n[min(t, len(self.n) - 1)] * (g2 * new)
        if self._statistics:
            zeros = drive.new_zeros(drive.shape)
            if self.training:
                normalize(self.bn[0], zeros if self.bias_last else zeros + kernels.u1.of_zeros(drive), t)
            c1 = normalize(self.bn[1], zeros, t)
        else:
            c1 = self.bn[1].get_parameter("bias").view(-1, 1, 1)
        h1 = F.relu(drive - F.relu(c1 * self.mu))
        g2 = self._gate(kernels.u2(h1), 2, self.u2_gate.bias, t)
        c2 = normalize(self.bn[3], kernels.excitation(h1), t)
        return g2 * F.relu(self.kappa * h1 + c2 * (self.gamma + self.w * h1))


class HGRUCell(PreconvCell):
    """One step of the hGRU (Linsley et al. 2018, arXiv:1805.08315), a horizontal circuit within one layer.

        x  = Conv(x_t)                                            linear, see PreconvCell
        g1 = sigmoid(N0(U1 * h + b1))                             gain: which part of h inhibits
        c1 = N1(W_inh * (g1 h))
        h1 = f(x - f(c1 (alpha h + mu)))                          inhibition
        g2 = sigmoid(N2(U2 * h1 + b2))                            mix: g2 = 1 replaces the state
        c2 = N3(W_exc * h1)
        h' = (1 - g2) h + g2 f(kappa h1 + gamma c2 + w h1 c2)     excitation

    f is relu, whatever the tower's activation. Without normalization this is the paper's own form: f is
    tanh, nothing rectifies the inhibition, and h' is scaled by a learned eta_t (1 at the start; steps
    beyond the trained ones use the last). W_inh and W_exc are symmetric in their channels.

    Differs from the paper: two kernels instead of one. Differs from serrelabmodels: the state starts at
    zero, not at noise; kernels are symmetric from the start (its gradient hook keeps them so) and of any
    size; b1 is log U(1, T - 1) as the paper has it and b2 = -b1; N may be any normalization.
    `thesis_exact` undoes the first three.

    Args:
        shared_kernel: One kernel for inhibition and excitation, as in the paper.
        symmetry: How W stays symmetric: "gradient", by its gradient, so that asymmetric weights of the
            original stay usable; "parametrized", W = (V + V^T) / 2 of the stored V; "free", not at all.
        gate_bias: "before_norm", as above and in the library, where batch and instance norms cancel b1 and
            b2; or "after_norm", g = sigmoid(N(U * h) + b), where the time constants act.
        hidden_seed: Fixes hidden_init "random", see Cell.initial_state.
    """

    def __init__(
        self,
        spec: CellSpec,
        *,
        shared_kernel: bool = False,
        symmetry: str = "gradient",
        gate_bias: str = "before_norm",
        hidden_seed: int | None = None,
    ) -> None:
        super().__init__(spec, "random" if spec.thesis_exact else "zero", hidden_seed)
        require_choice("symmetry", symmetry, SYMMETRIES)
        require_choice("gate_bias", gate_bias, GATE_BIASES)
        self.hgru = HGRUCircuit(spec, symmetry, shared_kernel, gate_bias)

    def kernels(self) -> HGRUKernels:
        return self.hgru.kernels()

    def step(
        self,
        drive: Tensor,
        state: State,
        t: int,
        kernels: HGRUKernels,
        mask: Tensor | None = None,
        last: bool = False,
    ) -> tuple[Tensor, State]:
        if state is None:
            state = self.first_state(drive)
        if state is None:
            h = self.hgru.from_zeros(drive, t, kernels)
        else:
            assert isinstance(state, Tensor)
            h = self.hgru(drive, state, t, kernels, mask)
        h = h.to(drive.dtype)
        return h, h
