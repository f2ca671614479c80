"""The convolutional long short-term memory."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.blocks import get_activation, require_choice
from models.cells.base import NORM_POSITIONS, Cell, CellSpec, State, masked, over_frames
from models.convolution import GateConvs, input_conv, state_conv
from models.normalization import keeps_statistics, normalize

PEEPHOLES = ("conv", "hadamard", "none")


_Drive = tuple[Tensor, Tensor, Tensor, Tensor | None]


class _Kernels(NamedTuple):
    of_h: GateConvs
    """Of i, o, candidate and f, in this order."""

    of_c: GateConvs | None
    """Of i, o and f: the peepholes that are convolutions."""


class ConvLSTMCell(Cell):
    """One step of the convolutional LSTM (Shi et al. 2015, arXiv:1506.04214).

        i = sigmoid(Wi * x + Ui * h + Vi * c)             all convolutions with a bias
        f = sigmoid(Wf * x + Uf * h + Vf * c)             f = 1 keeps the memory
        o = sigmoid(Wo * x + Uo * h + Vo * c)
        c' = f c + i g(Wc * x + Uc * h)                   g activation
        h' = N1(o g(c'))                                  N1, N2 normalizations
        and N2(c') is the memory of the next step

    Differs from the paper, as the original does: the peepholes V are convolutions and o looks at the old c;
    g is the tower's activation instead of tanh; both halves of the state are normalized.

    Args:
        peepholes: "conv", as above; "hadamard", the paper's products V c, here with one weight per channel
            because a weight per position would fix the image size, and o looking at c'; or "none".
        forget_bias: First bias of f, 1 so that a fresh cell remembers (Jozefowicz et al. 2015); 0 with
            thesis_exact.
        norm_position: "after", as above; "before": N1 of the candidate's input, and h' = o g(N2(c')) with
            c' itself as the memory (Cooijmans et al. 2017).
        hidden_seed: Fixes hidden_init "random", see Cell.initial_state.
    """

    wi: nn.Conv2d
    wo: nn.Conv2d
    wf: nn.Conv2d
    wcan: nn.Conv2d
    ui: nn.Conv2d
    uo: nn.Conv2d
    uf: nn.Conv2d
    ucan: nn.Conv2d

    def __init__(
        self,
        spec: CellSpec,
        *,
        peepholes: str = "conv",
        forget_bias: float | None = None,
        norm_position: str = "after",
        hidden_seed: int | None = None,
    ) -> None:
        super().__init__(spec, hidden_seed=hidden_seed)
        require_choice("peepholes", peepholes, PEEPHOLES)
        require_choice("norm_position", norm_position, NORM_POSITIONS)
        self.peepholes, self.norm_first = peepholes, norm_position == "before"
        activation = get_activation(spec.activation)
        self.activation = activation.function
        for gate, gain in (("f", 1.0), ("i", 1.0), ("o", 1.0), ("can", activation.gain)):
            shape = spec.in_channels, spec.out_channels, spec.kernel_size, spec.stride
            self.add_module(f"w{gate}", input_conv(*shape, gain))
            self.add_module(f"u{gate}", state_conv(spec.out_channels, spec.kernel_size))
            if gate != "can" and peepholes == "conv":
                self.add_module(f"v{gate}", state_conv(spec.out_channels, spec.kernel_size))
            if gate != "can" and peepholes == "hadamard":
                self.register_parameter(f"v{gate}", nn.Parameter(torch.zeros(spec.out_channels, 1, 1)))
        self.norm1, self.norm2 = spec.make_norm(), spec.make_norm()
        if forget_bias is None:
            forget_bias = 0.0 if spec.thesis_exact else 1.0
        assert self.wf.bias is not None
        nn.init.constant_(self.wf.bias, forget_bias)

    def _peephole_convs(self) -> list[nn.Conv2d]:
        return [self.get_submodule(name) for name in ("vi", "vo", "vf")]  # type: ignore[misc]

    def _peephole(self, gate: str, c: Tensor) -> Tensor:
        return self.get_parameter(f"v{gate}").to(c.dtype) * c

    def kernels(self) -> _Kernels:
        of_c = GateConvs(*self._peephole_convs()) if self.peepholes == "conv" else None
        return _Kernels(GateConvs(self.ui, self.uo, self.ucan, self.uf), of_c)

    def drive(self, x: Tensor) -> _Drive:
        """Of x: Wi, Wo, Wc and Wf."""
        i, o, g = GateConvs(self.wi, self.wo, self.wcan)(x)
        return i, o, g, self.wf(x)

    def drives(self, frames: Sequence[Tensor], dead_start: bool) -> list[Any]:
        written = over_frames(GateConvs(self.wi, self.wo, self.wcan), frames)
        forgets: list[Tensor | None] = [None] if dead_start else []
        forgets.extend(over_frames(self.wf, frames[1:] if dead_start else frames))
        return [(*drives, forget) for drives, forget in zip(written, forgets, strict=True)]

    def step(
        self,
        drive: _Drive,
        state: State,
        t: int,
        kernels: _Kernels,
        mask: Tensor | None = None,
        last: bool = False,
    ) -> tuple[Tensor, State]:
        if state is None:
            start = self.first_state(drive)
            state = None if start is None else (start, start)
        if state is None:
            i, o, g, f = self._gates_of_zeros(drive, kernels)
        else:
            assert isinstance(state, tuple)
            i, o, g, f = self._gates(drive, state, kernels, mask)
        if self.norm_first:
            g = normalize(self.norm1, g, t)
        g = self.activation(g)
        c = i * g
        if state is not None:
            assert f is not None
            c = torch.addcmul(c, f, state[1].to(c.dtype))
        if self.peepholes == "hadamard":
            o = o.add_(self._peephole("o", c))
        o = o.sigmoid_()
        if self.norm_first:
            h = o * self.activation(normalize(self.norm2, c, t))
            return h, (h, c)
        h = normalize(self.norm1, o * self.activation(c), t)
        if last and not keeps_statistics(self.norm2):
            return h, None
        return h, (h, normalize(self.norm2, c, t))

    def _gates_of_zeros(self, drive: _Drive, kernels: _Kernels) -> tuple[Tensor, Tensor, Tensor, None]:
        """i, and o and candidate before their nonlinearities, from a state of zeros: nothing to forget."""
        i, o, g, _ = drive
        bias_i, bias_o, bias_g, _ = kernels.of_h.of_zeros(i)
        i, o = i + bias_i, o + bias_o
        if kernels.of_c is not None:
            bias_i, bias_o, _ = kernels.of_c.of_zeros(i)
            i, o = i + bias_i, o + bias_o
        return i.sigmoid_(), o, g + bias_g, None

    def _gates(
        self,
        drive: _Drive,
        state: tuple[Tensor, Tensor],
        kernels: _Kernels,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """i and f, and o and candidate before their nonlinearities."""
        drive_i, drive_o, drive_g, drive_f = drive
        assert drive_f is not None
        h, c = masked(state[0], mask), masked(state[1], mask)
        i, o, g, f = kernels.of_h.plus(h, drive_i, drive_o, drive_g, drive_f)
        if kernels.of_c is not None:
            i, o, f = kernels.of_c.plus(c, i, o, f)
        elif self.peepholes == "hadamard":
            i, f = i.add_(self._peephole("i", c)), f.add_(self._peephole("f", c))
        return i.sigmoid_(), o, g, f.sigmoid_()
