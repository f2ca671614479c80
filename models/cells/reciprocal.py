"""The reciprocal gated cell."""

import torch
from torch import Tensor, nn

from models.blocks import get_activation, require_choice
from models.cells.base import NORM_POSITIONS, CellSpec, State, masked
from models.cells.preconv import PreconvCell
from models.convolution import GateConvs, state_conv
from models.normalization import keeps_statistics, normalize


class ReciprocalCell(PreconvCell):
    """One step of the reciprocal gated cell (Nayebi et al. 2018, arXiv:1807.00053).

        x  = Conv(x_t)                                                           linear, see PreconvCell
        h' = N1(f((1 - sigmoid(Wch * c)) x + (1 - sigmoid(Whh * h)) h))          f activation
        c' = N2(f((1 - sigmoid(Whc * h)) x + (1 - sigmoid(Wcc * c)) c))          N1, N2 normalizations

    h is the output, c the memory; all gates read the previous step, and an open gate (1) silences what it
    gates. Differs from the paper, as the original does: N, and the convolution in front.

    Args:
        norm_position: "after" f, as above, or "before" it: h' = f(N1(...)), c' = f(N2(...)).
        hidden_seed: Fixes hidden_init "random", see Cell.initial_state.
    """

    preconv_name = "preconv"

    wch: nn.Conv2d
    whh: nn.Conv2d
    whc: nn.Conv2d
    wcc: nn.Conv2d

    def __init__(
        self, spec: CellSpec, *, norm_position: str = "after", hidden_seed: int | None = None
    ) -> None:
        super().__init__(spec, hidden_seed=hidden_seed)
        require_choice("norm_position", norm_position, NORM_POSITIONS)
        self.norm_first = norm_position == "before"
        self.activation = get_activation(spec.activation).function
        for gate in ("wch", "whh", "whc", "wcc"):
            self.add_module(gate, state_conv(spec.out_channels, spec.kernel_size))
        self.norm1, self.norm2 = spec.make_norm(), spec.make_norm()

    def kernels(self) -> tuple[GateConvs, GateConvs]:
        """Of h and of c, those that make the output first; negative, since 1 - sigmoid(a) = sigmoid(-a)."""
        of_h, of_c = GateConvs(self.whh, self.whc, sign=-1), GateConvs(self.wch, self.wcc, sign=-1)
        return of_h, of_c

    def step(
        self,
        drive: Tensor,
        state: State,
        t: int,
        kernels: tuple[GateConvs, GateConvs],
        mask: Tensor | None = None,
        last: bool = False,
    ) -> tuple[Tensor, State]:
        last = last and not keeps_statistics(self.norm2)
        if state is None:
            start = self.first_state(drive)
            state = None if start is None else (start, start)
        if state is None:
            bias_hh, bias_hc = kernels[0].of_zeros(drive)
            bias_ch, bias_cc = kernels[1].of_zeros(drive)
            h = torch.sigmoid(bias_ch) * drive
            c = torch.sigmoid(bias_hc) * drive
        else:
            assert isinstance(state, tuple)
            h, c = state
            count = 1 if last else None  # the memory that nobody will read needs no gates
            of_h = kernels[0].sigmoids(masked(h, mask), count)
            of_c = kernels[1].sigmoids(masked(c, mask), count)
            h = torch.addcmul(of_c[0] * drive, of_h[0], h)
            c = c if last else torch.addcmul(of_h[1] * drive, of_c[1], c)
        h = self._nonlinear(self.norm1, h, t)
        return h, None if last else (h, self._nonlinear(self.norm2, c, t))

    def _nonlinear(self, norm: nn.Module, x: Tensor, t: int) -> Tensor:
        if self.norm_first:
            return self.activation(normalize(norm, x, t))
        return normalize(norm, self.activation(x), t)
