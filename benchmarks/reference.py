"""The cells and the unrolled tower written straight from their equations: slow, plain, independent.

This is the work as it is usually done: the whole network computed again in every time step, every gate a
convolution of its own, states of zeros convolved like any other, all activations kept for the backward
pass. benchmarks/step.py and benchmarks/memory.py measure the project's models against it, and the tests use
it as an oracle; so it imports nothing of models/. Parameter names are those of models/, and a state_dict
loads from one into the other with strict=True.

Shape letters: N images, C channels, Y x X feature map, K classes, T time steps. * is a convolution,
s the logistic function, f the activation, N a normalization.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = Tensor | tuple[Tensor, Tensor] | None

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
}

# Channels of the blocks of each tower type; every block is followed by a pooling in those given here.
FILTERS: dict[str, list[int]] = {
    "normal": [64, 128, 256, 256, 512],
    "wider": [128, 512, 512, 512, 1024],
}


def norm(name: str | None, channels: int, weight: float = 1.0) -> nn.Module:
    """The normalization called `name` over (N, C, Y, X), every scale at `weight`."""
    if name in (None, "none"):
        return nn.Identity()
    module: nn.Module = {
        "batchnorm": lambda: nn.BatchNorm2d(channels),
        "layernorm": lambda: nn.GroupNorm(1, channels),
        "instancenorm": lambda: nn.InstanceNorm2d(channels, affine=True),
        "groupnorm": lambda: nn.GroupNorm(math.gcd(32, channels), channels),
    }[str(name)]()
    nn.init.constant_(module.weight, weight)  # type: ignore[arg-type]
    return module


def conv(ins: int, outs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution with bias: same size at stride 1, unpadded above."""
    return nn.Conv2d(ins, outs, kernel, stride, padding="same" if stride == 1 else 0)


def reflected(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution that reflects its input at the border, or repeats it on maps too small to reflect."""
    pad = weight.shape[-1] // 2
    mode = "reflect" if pad < min(x.shape[2:]) else "replicate"
    return F.conv2d(F.pad(x, [pad] * 4, mode=mode), weight, bias)


class ConvBlock(nn.Module):
    """y = f(N(W * x + b)), no memory."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, f: str, n: str | None) -> None:
        super().__init__()
        self.f = ACTIVATIONS[f]
        self.conv, self.norm = conv(ins, outs, kernel, stride), norm(n, outs)

    def forward(self, x: Tensor, state: State = None, t: int = 0) -> tuple[Tensor, State]:
        return self.f(self.norm(self.conv(x))), None


class RNN(nn.Module):
    """h' = N(f(Wx * x + Wh * h)), each convolution with its bias."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, f: str, n: str | None) -> None:
        super().__init__()
        self.f = ACTIVATIONS[f]
        self.x2h, self.h2h = conv(ins, outs, kernel, stride), conv(outs, outs, kernel)
        self.norm = norm(n, outs)

    def forward(self, x: Tensor, h: Tensor | None = None, t: int = 0) -> tuple[Tensor, State]:
        drive = self.x2h(x)
        h = torch.zeros_like(drive) if h is None else h
        h = self.norm(self.f(drive + self.h2h(h)))
        return h, h


class GRU(nn.Module):
    """r = s(Wr * x + Ur * h), z = s(Wz * x + Uz * h), c = f(Wc * x + Uc * (r h)), h' = N((1 - z) h + z c).

    With thesis_exact the thesis' code: h' = N(z h + z c).
    """

    def __init__(
        self, ins: int, outs: int, kernel: int, stride: int, f: str, n: str | None, thesis_exact: bool
    ) -> None:
        super().__init__()
        self.f, self.thesis_exact = ACTIVATIONS[f], thesis_exact
        for gate in ("r", "z", "can"):
            self.add_module(f"w{gate}", conv(ins, outs, kernel, stride))
            self.add_module(f"u{gate}", conv(outs, outs, kernel))
        self.norm = norm(n, outs)

    def forward(self, x: Tensor, h: Tensor | None = None, t: int = 0) -> tuple[Tensor, State]:
        drive = self.wcan(x)
        h = torch.zeros_like(drive) if h is None else h
        r = torch.sigmoid(self.wr(x) + self.ur(h))
        z = torch.sigmoid(self.wz(x) + self.uz(h))
        c = self.f(drive + self.ucan(r * h))
        h = self.norm((z if self.thesis_exact else 1 - z) * h + z * c)
        return h, h


class LSTM(nn.Module):
    """g = s(Wg * x + Ug * h + Vg * c) for g of i, f, o; c' = f c + i f(Wc * x + Uc * h); h' = o f(c').

    As in the thesis' code: the peepholes V are convolutions, all three read the old c, f is the tower's
    activation, and afterwards h' is normalized by N1 and c' by N2.
    """

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, f: str, n: str | None) -> None:
        super().__init__()
        self.f = ACTIVATIONS[f]
        for gate in ("f", "i", "o", "can"):
            self.add_module(f"w{gate}", conv(ins, outs, kernel, stride))
            self.add_module(f"u{gate}", conv(outs, outs, kernel))
            if gate != "can":
                self.add_module(f"v{gate}", conv(outs, outs, kernel))
        self.norm1, self.norm2 = norm(n, outs), norm(n, outs)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None, t: int = 0
    ) -> tuple[Tensor, State]:
        drive = self.wcan(x)
        h, c = (torch.zeros_like(drive), torch.zeros_like(drive)) if state is None else state
        forget = torch.sigmoid(self.wf(x) + self.uf(h) + self.vf(c))
        write = torch.sigmoid(self.wi(x) + self.ui(h) + self.vi(c))
        read = torch.sigmoid(self.wo(x) + self.uo(h) + self.vo(c))
        c = forget * c + write * self.f(drive + self.ucan(h))
        h = self.norm1(read * self.f(c))
        c = self.norm2(c)
        return h, (h, c)


class Reciprocal(nn.Module):
    """The reciprocal gated cell (Nayebi et al. 2018, arXiv:1807.00053), x = Conv(input), f then N.

    h' = N1(f((1 - s(Wch * c)) x + (1 - s(Whh * h)) h))
    c' = N2(f((1 - s(Whc * h)) x + (1 - s(Wcc * c)) c))
    """

    def __init__(
        self, ins: int, outs: int, kernel: int, stride: int, f: str, n: str | None, preconv: int
    ) -> None:
        super().__init__()
        self.f = ACTIVATIONS[f]
        self.preconv = conv(ins, outs, preconv, stride)
        for gate in ("wch", "whh", "whc", "wcc"):
            self.add_module(gate, conv(outs, outs, kernel))
        self.norm1, self.norm2 = norm(n, outs), norm(n, outs)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None, t: int = 0
    ) -> tuple[Tensor, State]:
        x = self.preconv(x)
        h, c = (torch.zeros_like(x), torch.zeros_like(x)) if state is None else state
        new_h = (1 - torch.sigmoid(self.wch(c))) * x + (1 - torch.sigmoid(self.whh(h))) * h
        new_c = (1 - torch.sigmoid(self.whc(h))) * x + (1 - torch.sigmoid(self.wcc(c))) * c
        h, c = self.norm1(self.f(new_h)), self.norm2(self.f(new_c))
        return h, (h, c)


class HGRUCircuit(nn.Module):
    """The hGRU (Linsley et al. 2018, arXiv:1805.08315) in the form with rectification, two kernels and norms.

    g1 = s(N0(U1 * h + b1)),  c1 = N1(Winh * (g1 h)),  h1 = relu(x - relu(c1 (alpha h + mu)))
    g2 = s(N2(U2 * h1 + b2)), c2 = N3(Wexc * h1),      y = relu(kappa h1 + gamma c2 + w h1 c2)
    h' = (1 - g2) h + g2 y

    Without normalization the paper's own: tanh for relu, no inner relu, and h' scaled by n_t.
    """

    def __init__(self, channels: int, kernel: int, n: str | None, time_steps: int) -> None:
        super().__init__()
        self.u1_gate, self.u2_gate = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        for name in ("w_gate_inh", "w_gate_exc"):
            kernels = nn.Parameter(nn.init.orthogonal_(torch.empty(channels, channels, kernel, kernel)))
            # Keeps a kernel that starts symmetric in its channels symmetric.
            kernels.register_hook(lambda grad: (grad + grad.transpose(0, 1)) / 2)
            self.register_parameter(name, kernels)
        for name, value in {"alpha": 0.1, "gamma": 1.0, "kappa": 0.5, "w": 0.5, "mu": 1.0}.items():
            self.register_parameter(name, nn.Parameter(torch.full((channels, 1, 1), value)))
        if n in (None, "none"):
            self.n = nn.Parameter(torch.ones(time_steps, 1, 1))
        else:
            self.bn = nn.ModuleList(norm(n, channels, 0.1) for _ in range(4))

    def forward(self, x: Tensor, h: Tensor, t: int) -> Tensor:
        if not hasattr(self, "bn"):
            g1 = torch.sigmoid(self.u1_gate(h))
            c1 = F.conv2d(g1 * h, self.w_gate_inh, padding="same")
            h1 = torch.tanh(x - c1 * (self.alpha * h + self.mu))
            g2 = torch.sigmoid(self.u2_gate(h1))
            c2 = F.conv2d(h1, self.w_gate_exc, padding="same")
            y = torch.tanh(self.kappa * h1 + self.gamma * c2 + self.w * h1 * c2)
            return self.n[min(t, len(self.n) - 1)] * ((1 - g2) * h + g2 * y)
        g1 = torch.sigmoid(self.bn[0](self.u1_gate(h)))
        c1 = self.bn[1](F.conv2d(g1 * h, self.w_gate_inh, padding="same"))
        h1 = F.relu(x - F.relu(c1 * (self.alpha * h + self.mu)))
        g2 = torch.sigmoid(self.bn[2](self.u2_gate(h1)))
        c2 = self.bn[3](F.conv2d(h1, self.w_gate_exc, padding="same"))
        y = F.relu(self.kappa * h1 + self.gamma * c2 + self.w * h1 * c2)
        return (1 - g2) * h + g2 * y


class Attention(nn.Module):
    """Convolutions, each followed by relu: the channels halve and come back, or halve and end at one."""

    def __init__(self, channels: int, outs: int, kernel: int) -> None:
        super().__init__()
        first, second = nn.Conv2d(channels, channels // 2, kernel), nn.Conv2d(channels // 2, outs, kernel)
        self.attention = nn.ModuleDict({"0": first, "2": second})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.attention.values():
            x = F.relu(reflected(x, layer.weight, layer.bias))
        return x


class GALA(nn.Module):
    """Channel attention times spatial attention (Linsley et al. 2019, arXiv:1805.08819)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.se, self.sa = Attention(channels, channels, 1), Attention(channels, 1, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.se(x) * self.sa(x)


class FGRUCircuit(nn.Module):
    """The fGRU (Linsley et al. 2020, arXiv:2010.15314) with GALA attention A.

    g1 = s(N(A(h) + b1)), c1 = N(W1 * (g1 h)), h1 = relu(x - relu((alpha h + mu) c1))
    g2 = s(N(U * h1 + b2)), c2 = N(W2 * h1),   y = relu(kappa (h1 + c2) + omega h1 c2)
    h' = (1 - g2) h + g2 y, in the top-down form (1 - g2) x + g2 y
    """

    def __init__(self, channels: int, kernel: int, n: str | None) -> None:
        super().__init__()
        self.attention = GALA(channels)
        self.conv_g2_w = nn.Parameter(nn.init.orthogonal_(torch.empty(channels, channels, 1, 1)))
        for name in ("conv_c1_w", "conv_c2_w"):
            kernels = nn.init.orthogonal_(torch.empty(channels, channels, kernel, kernel))
            self.register_parameter(name, nn.Parameter(kernels))
        values = {"conv_g1_b": 0.0, "conv_g2_b": 0.0, "alpha": 0.1, "mu": 1.0, "omega": 0.5, "kappa": 0.5}
        for name, value in values.items():
            self.register_parameter(name, nn.Parameter(torch.full((channels, 1, 1), value)))
        for name in ("bn_g1", "bn_c1", "bn_g2", "bn_c2"):
            self.add_module(name, norm(n, channels, 0.1))

    def forward(self, x: Tensor, h: Tensor, topdown: bool = False) -> Tensor:
        g1 = torch.sigmoid(self.bn_g1(self.attention(h) + self.conv_g1_b))
        c1 = self.bn_c1(reflected(g1 * h, self.conv_c1_w))
        h1 = F.relu(x - F.relu((self.alpha * h + self.mu) * c1))
        g2 = torch.sigmoid(self.bn_g2(F.conv2d(h1, self.conv_g2_w) + self.conv_g2_b))
        c2 = self.bn_c2(reflected(h1, self.conv_c2_w))
        y = F.relu(self.kappa * (h1 + c2) + self.omega * h1 * c2)
        return (1 - g2) * (x if topdown else h) + g2 * y


class HGRU(nn.Module):
    """HGRUCircuit behind a linear convolution; the first state is zero."""

    def __init__(
        self, ins: int, outs: int, kernel: int, stride: int, n: str | None, preconv: int, time_steps: int
    ) -> None:
        super().__init__()
        self.conv = conv(ins, outs, preconv, stride)
        self.hgru = HGRUCircuit(outs, kernel, n, time_steps)

    def forward(self, x: Tensor, h: Tensor | None = None, t: int = 0) -> tuple[Tensor, State]:
        x = self.conv(x)
        h = self.hgru(x, torch.zeros_like(x) if h is None else h, t)
        return h, h


class FGRU(nn.Module):
    """FGRUCircuit behind a linear convolution; the first state is the circuit's input."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, n: str | None, preconv: int) -> None:
        super().__init__()
        self.conv = conv(ins, outs, preconv, stride)
        self.fgru = FGRUCircuit(outs, kernel, n)

    def forward(self, x: Tensor, h: Tensor | None = None, t: int = 0) -> tuple[Tensor, State]:
        x = self.conv(x)
        h = self.fgru(x, x if h is None else h)
        return h, h


CELL_TYPES = ("conv", "rnn", "gru", "lstm", "reciprocal", "hgru", "fgru")


def build_cell(
    cell_type: str,
    ins: int,
    outs: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    activation: str = "relu",
    normalization: str | None = None,
    preconv_kernel: int = 1,
    time_steps: int = 1,
    thesis_exact: bool = False,
) -> nn.Module:
    """One cell, called cell(x, state=None, t=0) -> (output, state)."""
    plain = (ins, outs, kernel_size, stride)
    match cell_type:
        case "conv":
            return ConvBlock(*plain, activation, normalization)
        case "rnn":
            return RNN(*plain, activation, normalization)
        case "gru":
            return GRU(*plain, activation, normalization, thesis_exact)
        case "lstm":
            return LSTM(*plain, activation, normalization)
        case "reciprocal":
            return Reciprocal(*plain, activation, normalization, preconv_kernel)
        case "hgru":
            return HGRU(*plain, normalization, preconv_kernel, time_steps)
        case "fgru":
            return FGRU(*plain, normalization, preconv_kernel)
    raise ValueError(f"unknown cell_type {cell_type!r}; allowed: {', '.join(CELL_TYPES)}")


class Tower(nn.Module):
    """Blocks with 2x2 max poolings between them and a 3x3 convolution for a head.

    Every block is computed in every step. A tower of "conv" blocks makes one step, whatever T.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        cell_type: str,
        time_steps: int,
        tower_type: str = "normal",
        filters: Sequence[int] | None = None,
        pools: Sequence[bool] | None = None,
        activation: str = "relu",
        normalization: str | None = "batchnorm",
        skip_first: bool = False,
        cell_kernel: int = 3,
        preconv_kernel: int = 1,
        first_kernel: int = 7,
        first_stride: int = 2,
        thesis_exact: bool = False,
    ) -> None:
        super().__init__()
        filters = list(filters or FILTERS[tower_type])
        self.pools = list(pools or [True] * len(filters))
        self.time_steps = time_steps
        self.stateless = cell_type == "conv"
        self.cell_blocks = nn.ModuleList(
            build_cell(
                "conv" if i == 0 and skip_first else cell_type,
                ins,
                outs,
                kernel_size=first_kernel if i == 0 else cell_kernel,
                stride=first_stride if i == 0 else 1,
                activation=activation,
                normalization=normalization,
                preconv_kernel=preconv_kernel,
                time_steps=time_steps,
                thesis_exact=thesis_exact,
            )
            for i, (ins, outs) in enumerate(pairwise([3, *filters]))
        )
        self.last_conv = nn.Conv2d(filters[-1], num_classes, 3)

    def forward(self, x: Tensor, time_steps: int | None = None, return_all: bool = False) -> Tensor:
        """Logits of the last step, (N, K), or of all steps, (T, N, K)."""
        states: list[State] = [None] * len(self.cell_blocks)
        logits = []
        steps = 1 if self.stateless else time_steps or self.time_steps
        for t in range(steps):
            y = x
            for i, block in enumerate(self.cell_blocks):
                y, states[i] = block(y, states[i], t)
                y = F.max_pool2d(y, 2) if self.pools[i] else y
            if return_all or t == steps - 1:
                logits.append(self.head(y))
        return torch.stack(logits) if return_all else logits[-1]

    def head(self, x: Tensor) -> Tensor:
        """The convolution at its valid positions, averaged; a side below 3 gets a zero on both ends first."""
        pad_y, pad_x = int(x.shape[2] < 3), int(x.shape[3] < 3)
        return self.last_conv(F.pad(x, [pad_x, pad_x, pad_y, pad_y])).mean((2, 3))
