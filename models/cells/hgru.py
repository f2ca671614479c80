"""The horizontal gated recurrent unit, built on serrelabmodels' circuit."""

from typing import Any

import torch
import torch.nn.functional as F
from serrelabmodels.layers.hgru_cell import hGRUCell
from torch import Tensor, nn

from models.blocks import make_norm
from models.cells.base import CellSpec, State
from models.cells.preconv import PreconvCell, chronos_bias


class HGRUCircuit(hGRUCell):
    """serrelabmodels' hGRUCell with its first state, its norms and its norm-free path mended."""

    def __init__(
        self, channels: int, kernel_size: int, normalization: str, time_steps: int, thesis_exact: bool
    ):
        normalized = normalization != "none"
        super().__init__(channels, channels, kernel_size, batchnorm=normalized, timesteps=time_steps)
        if normalized:
            self.bn = nn.ModuleList(make_norm(normalization, channels, weight=0.1) for _ in range(4))
        else:
            nn.init.ones_(self.n)
        if not thesis_exact:
            self._reset_time_constants(channels, time_steps)
            self._make_kernels_symmetric()

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
        for kernel in (self.w_gate_inh, self.w_gate_exc):
            kernel.copy_((kernel + kernel.transpose(0, 1)) / 2**0.5)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copied or unpickled parameter has lost the hook that the library's constructor gave it.
        super().__setstate__(state)
        for kernel in (self.w_gate_inh, self.w_gate_exc):
            kernel.register_hook(lambda grad: (grad + grad.transpose(0, 1)) / 2)

    def forward(self, drive: Tensor, h2: Tensor, t: int = 0) -> Tensor:
        if self.batchnorm:
            # At timestep 0 the library replaces a given state by noise; this path uses t for nothing else.
            return super().forward(drive, h2, timestep=1)[0]
        eta = self.n[min(t, len(self.n) - 1)]
        g1 = torch.sigmoid(self.u1_gate(h2))
        c1 = F.conv2d(g1 * h2, self.w_gate_inh, padding=self.padding)
        h1 = torch.tanh(drive - c1 * (self.alpha * h2 + self.mu))
        g2 = torch.sigmoid(self.u2_gate(h1))
        c2 = F.conv2d(h1, self.w_gate_exc, padding=self.padding)
        h2_new = torch.tanh(self.kappa * h1 + self.gamma * c2 + self.w * h1 * c2)
        return eta * ((1 - g2) * h2 + g2 * h2_new)


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
    zero, not at noise; kernels are symmetric from the start (its gradient hook keeps them so); b1 is
    log U(1, T - 1) as the paper has it and b2 = -b1; N may be any normalization. The biases come before
    N, as in the library, so batchnorm and instancenorm cancel them.
    `thesis_exact` undoes the first three.
    """

    def __init__(self, spec: CellSpec) -> None:
        super().__init__(spec, hidden_init="random" if spec.thesis_exact else "zero")
        if spec.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size of hgru must be odd so that padding keeps the map size, got {spec.kernel_size}"
            )
        self.hgru = HGRUCircuit(
            spec.out_channels,
            spec.kernel_size,
            spec.normalization or "none",
            spec.time_steps,
            spec.thesis_exact,
        )

    def step(self, drive: Tensor, state: State, t: int) -> tuple[Tensor, State]:
        h = self.hgru(drive, self.initial_state(drive) if state is None else state, t)
        return h, h
