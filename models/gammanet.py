"""The gamma-net: a convolutional encoder, fGRUs in each of its stages, and top-down fGRUs back to the first.

Shape letters: N images, C channels, Y x X feature map, K classes, T time steps, L recurrent layers.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.blocks import get_activation, require_choice
from models.cells.base import CellSpec
from models.cells.fgru import CIRCUIT_OPTIONS, FGRUCircuit, FGRUKernels
from models.convolution import init_input_conv, make_conv
from models.normalization import batch_statistics_counted, make_norm, normalize
from models.unroll import with_zero_gradients


class GammaNetType(NamedTuple):
    filters: list[int]
    """Channels of the five stages of the encoder, with 2x2 max poolings between them."""

    convs: list[int]
    """Convolutions of each stage."""

    kernel_sizes: list[int]
    """Side of the fGRUs' kernels at the end of stages 2 to 5."""


# "small" is the thesis' encoder, the feed-forward tower's stem and widths; "normal" is VGG-16 (Simonyan and
# Zisserman 2015, arXiv:1409.1556) up to conv5_3, as serrelabmodels has it.
GAMMANET_TYPES: dict[str, GammaNetType] = {
    "small": GammaNetType([64, 128, 256, 256, 512], [1, 1, 1, 1, 1], [3, 3, 3, 1]),
    "normal": GammaNetType([64, 128, 256, 512, 512], [2, 2, 3, 3, 3], [3, 3, 3, 1]),
}

TOPDOWN_KERNEL = 1
HEADS = ("map", "pooled")
MAP_SIDE = 224  # of the map that the original's classifier was built for
SMALLEST_MAP = 2  # an instance norm needs two positions


class Encoder(nn.Module):
    """The feed-forward convolutions by their names; GammaNetCore strings them together."""

    def __init__(
        self,
        kind: GammaNetType,
        in_channels: int,
        filters: Sequence[int],
        first_kernel: int,
        first_stride: int,
    ) -> None:
        super().__init__()
        self.stages: list[list[nn.Conv2d]] = []
        channels = in_channels
        for stage, (outs, count) in enumerate(zip(filters, kind.convs, strict=True), start=1):
            convs = []
            for i in range(1, count + 1):
                first = channels == in_channels and stage == i == 1
                conv = make_conv(channels, outs, first_kernel if first else 3, first_stride if first else 1)
                init_input_conv(conv, get_activation("relu").gain)
                self.add_module(f"conv{stage}" if max(kind.convs) == 1 else f"conv{stage}_{i}", conv)
                convs.append(conv)
                channels = outs
            self.stages.append(convs)


class GammaNetCore(nn.Module):
    """The recurrent part: everything but the classifier, see GammaNet."""

    def __init__(
        self,
        encoder: Encoder,
        kernel_sizes: Sequence[int],
        normalization: str,
        time_steps: int,
        readout: bool,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__()

        def circuit(channels: int, kernel_size: int) -> FGRUCircuit:
            spec = CellSpec(
                channels,
                channels,
                kernel_size=kernel_size,
                normalization=normalization,
                time_steps=time_steps,
            )
            try:
                return FGRUCircuit(spec, **options)
            except ValueError as error:
                raise ValueError(f"fGRU of {channels} channels in the gammanet: {error}") from error

        # Each convolution has two names, its own and its place in a block, as in the original's weight files.
        self.base_ff = encoder
        first, second, *others = encoder.stages
        self.input_block = nn.Sequential(*_relu_after(first), nn.MaxPool2d(2), *_relu_after(second))
        self.ds_blocks = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), *_relu_after(s)) for s in others)
        widths = [stage[-1].out_channels for stage in encoder.stages[1:]]
        down = list(pairwise(reversed(widths)))
        self.h_units = nn.ModuleList(circuit(c, k) for c, k in zip(widths, kernel_sizes, strict=True))
        self.td_units = nn.ModuleList(circuit(c, TOPDOWN_KERNEL) for _, c in down)
        self.us_blocks = nn.ModuleList(
            nn.Sequential(
                make_norm(normalization, above, 0.1, time_steps),
                *_relu_after([_conv_1x1(above, c), _conv_1x1(c, c)]),
            )
            for above, c in down
        )
        if readout:
            self.readout_norm = make_norm(normalization, widths[0], 0.1, time_steps)
            self.readout_conv = _conv_1x1(widths[0], 1)
        if normalization == "none":  # the size that the norms' scale of 0.1 would give what they feed
            with torch.no_grad():
                for block in self.us_blocks:
                    block[1].weight.mul_(0.1)  # type: ignore[index]
                if readout:
                    self.readout_conv.weight.mul_(0.1)

    def kernels(self) -> list[FGRUKernels]:
        """The kernels of h_units and td_units, for all steps of a forward pass to share."""
        return [unit.kernels() for unit in (*self.h_units, *self.td_units)]

    def step(
        self, drive: Tensor, states: Sequence[Tensor] | None, t: int, kernels: list[FGRUKernels] | None = None
    ) -> list[Tensor]:
        """One sweep up and down: the states of all layers, the lowest first, after time step t."""
        kernels = kernels or self.kernels()
        x, new = drive, []
        for layer, unit in enumerate(self.h_units):
            if layer:
                x = self.ds_blocks[layer - 1](x)
            x = unit(x, x if states is None else states[layer], t, kernels[layer])
            new.append(x)
        top = len(new) - 1
        for i, (up, unit) in enumerate(zip(self.us_blocks, self.td_units, strict=True)):
            assert isinstance(up, nn.Sequential)
            h = new[top - 1 - i]
            x = F.interpolate(x, h.shape[2:], mode="bilinear", align_corners=True)
            feedback = up[1:](normalize(up[0], x, t))
            x = unit(h, feedback, t, kernels[top + 1 + i], topdown=True) + h
            new[top - 1 - i] = x
        return new

    def readout(self, lowest: Tensor, t: int) -> Tensor:
        """One map of the lowest layer, (N, 1, MAP_SIDE, MAP_SIDE)."""
        x = normalize(self.readout_norm, lowest, t)
        x = F.interpolate(x, (MAP_SIDE, MAP_SIDE), mode="bilinear", align_corners=True)
        return self.readout_conv(x)


class GammaNet(nn.Module):
    """The gamma-net of Linsley et al. 2020 (arXiv:2010.15314), classifying images as in the thesis.

    An encoder of five stages; layers l = 1..L are fGRUs at the end of its stages 2 to 5. In each time step

        up:    h_l = fGRU(x_l, h_l),  x_1 = stages 1 and 2 of the image,  x_{l+1} = stage(h_l)
        down:  h_l = h_l + TopDown(h_l, Up(h_{l+1}))        l = L - 1, ..., 1

    Up resizes bilinearly, then norm and two 1x1 convolutions with relu. The first h_l is x_l. Of the image's
    own stages nothing changes over time, so they are computed once.

    Differs from the original, which steps as often as it was trained whatever a call asks for, answers with
    the last step only, and calls a stack of readout maps its hidden states: here a call may ask for any T,
    for the logits of every step and for every layer's state. The original is made for 224 px; here the map
    of the head is resized to that whatever the image.

    Args:
        num_classes: K.
        tower_type: Key of GAMMANET_TYPES.
        filters: Channels of the five stages, instead of the type's.
        normalization: Key of normalization.NORMALIZATIONS; None means none.
        time_steps: T unless a call asks for another; the range of the gates' initial time constants.
        gamma_head: What the linear classifier reads. "map", the original's: one map, 224 x 224, of the lowest
            layer, which takes 50 million weights for 1000 classes. "pooled": the means over all positions of
            every layer's state, 1152 features of "small".
        first_kernel: Side of the kernel of the first convolution; "normal" always has 3.
        first_stride: Its stride, unpadded if above 1; "normal" always has 1.
        recompute: Keep no activations of a time step, but compute it again in the backward pass: memory
            hardly grows with T, time by a third.
        in_channels: Channels of the images.
        cell_options: Options of all fGRUs, across and top-down: those of cells.FGRUCell but hidden_seed.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        tower_type: str = "normal",
        filters: Sequence[int] | None = None,
        normalization: str | None = "instancenorm",
        time_steps: int = 1,
        gamma_head: str = "map",
        first_kernel: int = 7,
        first_stride: int = 2,
        recompute: bool = False,
        in_channels: int = 3,
        cell_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        require_choice("tower_type of gammanet", tower_type, GAMMANET_TYPES)
        require_choice("gamma_head", gamma_head, HEADS)
        kind = GAMMANET_TYPES[tower_type]
        filters = list(kind.filters if filters is None else filters)
        if len(filters) != len(kind.filters) or min(filters) < 1:
            raise ValueError(
                f"filters of a gammanet are the channels of its {len(kind.filters)} stages, got {filters}"
            )
        unknown = [option for option in cell_options or {} if option not in CIRCUIT_OPTIONS]
        if unknown:
            given, having = ", ".join(map(repr, unknown)), ", ".join(CIRCUIT_OPTIONS)
            raise ValueError(f"gammanet has no option {given}; it has: {having}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.time_steps, self.recompute, self.head = _checked_steps(time_steps), recompute, gamma_head
        self._first = (3, 1) if tower_type == "normal" else (first_kernel, first_stride)
        encoder = Encoder(kind, in_channels, filters, *self._first)
        self.network = GammaNetCore(
            encoder,
            kind.kernel_sizes,
            normalization or "none",
            time_steps,
            readout=gamma_head == "map",
            options=cell_options or {},
        )
        features = MAP_SIDE**2 if gamma_head == "map" else sum(filters[1:])
        self.cls = nn.Linear(features, num_classes)

    @property
    def smallest_image(self) -> int:
        """Side in pixels of the smallest square image whose highest layer has 2x2 positions."""
        kernel, stride = self._first
        side = SMALLEST_MAP * 2 ** (len(self.network.h_units))
        return side if stride == 1 else (side - 1) * stride + kernel

    def forward(
        self,
        x: Tensor,
        time_steps: int | None = None,
        return_all: bool = False,
        return_hidden: bool = False,
    ) -> Tensor | list[Tensor] | tuple[Tensor | list[Tensor], list[Tensor] | list[list[Tensor]]]:
        """Logits of images x, (N, in_channels, Y, X).

        Args:
            time_steps: T of this call; None is the network's own.
            return_all: Return the logits of each time step, a list of T tensors, instead of the last.
            return_hidden: Return (logits, hidden) with the layers' states, the lowest first: hidden[layer]
                of the last step, or with return_all hidden[t][layer].

        Returns:
            (N, K), a list of T (N, K), or either of them paired with the hidden states.
        """
        if x.ndim != 4:
            raise ValueError(f"images must be (N, C, Y, X), got shape {tuple(x.shape)}")
        self.check_size(*x.shape[2:])
        steps = _checked_steps(self.time_steps if time_steps is None else time_steps)
        drive = self.network.input_block(x)
        recompute = self.recompute and torch.is_grad_enabled()
        kernels = None if recompute and steps > 1 else self.network.kernels()
        states: list[Tensor] | None = None
        logits: list[Tensor] = []
        hidden: list[list[Tensor]] = []
        for t in range(steps):
            if recompute and t < steps - 1:  # the last step's backward pass follows at once
                states = checkpoint(
                    self.network.step,
                    drive,
                    states,
                    t,
                    use_reentrant=False,
                    preserve_rng_state=False,
                    # Batch norms must not count a batch again when a step is.
                    context_fn=lambda: (nullcontext(), batch_statistics_counted(self.network, 0)),
                )
            else:
                states = self.network.step(drive, states, t, kernels)
            if return_all or t == steps - 1:
                logits.append(self._classify(states, t))
                hidden.append(states)
        if steps < self.time_steps:  # the batch norms of the other steps, where each has its own
            logits[-1] = with_zero_gradients(logits[-1], list(self.network.parameters()))
        if return_all:
            return (logits, hidden) if return_hidden else logits
        return (logits[-1], hidden[-1]) if return_hidden else logits[-1]

    def _classify(self, states: list[Tensor], t: int) -> Tensor:
        if self.head == "map":
            return self.cls(self.network.readout(states[0], t).flatten(1))
        return self.cls(torch.cat([state.mean((2, 3)) for state in states], dim=1))

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError, with the remedy, where an image of so many pixels is too small."""
        if min(height, width) < self.smallest_image:
            raise ValueError(
                f"an image of {height}x{width} px is too small for this gammanet, which needs "
                f"{self.smallest_image} px; use larger images, or first_kernel 3 and first_stride 1"
            )


def _relu_after(convs: list[nn.Conv2d]) -> list[nn.Module]:
    return [module for conv in convs for module in (conv, nn.ReLU())]


def _conv_1x1(ins: int, outs: int) -> nn.Conv2d:
    conv = nn.Conv2d(ins, outs, 1)
    init_input_conv(conv, get_activation("relu").gain)
    return conv


def _checked_steps(time_steps: int) -> int:
    if time_steps < 1:
        raise ValueError(f"time_steps must be at least 1, got {time_steps}")
    return time_steps
