"""Convolutions: how they are made, how they start, and how several of them share one launch per time step.

Shape letters: N images, C channels, Y x X feature map.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def make_conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the map size at stride 1, and uses no padding at a larger stride.

    The unpadded stride is the original model's: 224 px and the 7x7 kernel at stride 2 give 109, and five
    poolings later the 3x3 map that its head was built for.
    """
    if kernel_size < 1 or stride < 1:
        raise ValueError(f"kernel_size and stride must be at least 1, got {kernel_size} and {stride}")
    padding: int | str = 0
    if stride == 1:
        padding = kernel_size // 2 if kernel_size % 2 else "same"
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding)


def init_input_conv(conv: nn.Conv2d, gain: float) -> None:
    """He initialisation (arXiv:1502.01852) over fan-out with this gain; biases zero."""
    fan_out = conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1]
    nn.init.normal_(conv.weight, 0.0, gain / math.sqrt(fan_out))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def init_state_conv(conv: nn.Conv2d) -> None:
    """Orthogonal, so that repeating it over time neither grows nor shrinks a state; biases zero."""
    nn.init.orthogonal_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def input_conv(in_channels: int, out_channels: int, kernel_size: int, stride: int, gain: float) -> nn.Conv2d:
    """A convolution of the feed-forward input, ready to use."""
    conv = make_conv(in_channels, out_channels, kernel_size, stride)
    init_input_conv(conv, gain)
    return conv


def state_conv(channels: int, kernel_size: int) -> nn.Conv2d:
    """A convolution of a state, ready to use."""
    conv = make_conv(channels, channels, kernel_size)
    init_state_conv(conv)
    return conv


def stacked_conv(convs: Sequence[nn.Conv2d], x: Tensor) -> Tensor:
    """The outputs of several convolutions of the same x, stacked along channels, in one launch."""
    return conv_with(convs[0], x, *stacked(convs))


def conv_with(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv` with other weights of the same kernel size."""
    return F.conv2d(x, weight, bias, conv.stride, conv.padding)


class StateConv:
    """Convolutions of one state, stacked along channels, for all time steps of one forward pass.

    The weights are stacked, and under autocast converted, once. On small maps, where a step has little work
    for many weights, the weights' gradient waits until every step has left its share and is then one
    convolution over all steps' images, which is several times as fast.

    Args:
        weight: (C_out, C_in, k, k), the state keeps its size for odd and even k.
        bias: (C_out,) or None.
        reflect: Pad by reflection instead of zeros; by repeating the border where a map is too small.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, reflect: bool = False) -> None:
        device = weight.device.type
        self.channels = weight.shape[0]
        self.bias = bias
        # The meta device, on which a run's shapes are checked beforehand, knows no autocast and raises.
        if device != "meta" and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        self._weight, self._bias = weight, bias
        total = weight.shape[-1] - 1
        self._pads = (total // 2, total - total // 2)
        self._mode = "reflect" if reflect else "constant"
        self._tape: _Tape | None = None
        if torch.is_grad_enabled() and weight.requires_grad and not torch.compiler.is_compiling():
            self._tape = _Tape()
            self._token = _Collect.apply(weight, bias, self._tape)

    @classmethod
    def of(cls, *convs: nn.Conv2d, sign: int = 1) -> "StateConv":
        """The convolutions of these modules, in this order along the output's channels, times sign."""
        weight, bias = stacked(convs)
        if sign < 0:
            weight, bias = -weight, None if bias is None else -bias
        return cls(weight, bias)

    def __call__(self, x: Tensor, width: int | None = None) -> Tensor:
        """All output channels, or the first `width` of them."""
        before, after = self._pads
        padding = before
        if before != after or self._mode != "constant":
            mode = "replicate" if self._mode == "reflect" and min(x.shape[2:]) <= after else self._mode
            if after:
                x = F.pad(x, (before, after, before, after), mode=mode)
            padding = 0
        weight, bias = self._weight[:width], None if self._bias is None else self._bias[:width]
        if self._tape is None:
            return F.conv2d(x, weight, bias, padding=padding)
        self._tape.padding = padding
        x = x.to(weight.dtype)
        return _Step.apply(
            x, self._token, weight.detach(), None if bias is None else bias.detach(), self._tape
        )

    def of_zeros(self, like: Tensor) -> Tensor:
        """What the convolutions make of an all-zero map: the bias, (C_out, 1, 1), without the work."""
        assert self.bias is not None
        return self.bias.to(like.dtype).view(-1, 1, 1)


class _Tape:
    """What the backward passes of the steps leave for the gradient of their common weights."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.sums: list[Tensor] = []
        self.padding = 0
        self._backward = -1

    def add(self, x: Tensor, gradient: Tensor) -> None:
        """Keep a step's share for later."""
        self._open()
        self.inputs.append(x)
        self.gradients.append(gradient)

    def add_gradients(self, of_weight: Tensor, of_bias: Tensor | None) -> None:
        """Take a step's share that is computed already."""
        self._open()
        for i, gradient in enumerate([of_weight] if of_bias is None else [of_weight, of_bias]):
            if i == len(self.sums):
                self.sums.append(gradient)
            else:
                narrow = min(len(gradient), len(self.sums[i]))
                if len(gradient) > narrow:
                    gradient[:narrow] += self.sums[i]
                    self.sums[i] = gradient
                else:
                    self.sums[i][:narrow] += gradient

    def _open(self) -> None:
        # A backward pass that asked for other gradients only has left shares that nobody collected.
        backward = torch._C._current_graph_task_id()
        if backward != self._backward:
            self.clear()
            self._backward = backward

    def clear(self) -> None:
        self.inputs.clear()
        self.gradients.clear()
        self.sums.clear()


class _Collect(torch.autograd.Function):
    """Its backward pass runs after those of all steps, because each of them used the token it returns."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, tape: _Tape) -> Tensor:
        ctx.tape, ctx.has_bias = tape, bias is not None
        ctx.save_for_backward(weight)
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, token: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (weight,), tape = ctx.saved_tensors, ctx.tape
        width = weight.shape[0]
        if tape.inputs:
            x, gradient = _joined(tape.inputs), _joined([_widened(g, width) for g in tape.gradients])
            mask = [False, True, ctx.has_bias]
            sums = list(_conv_backward(gradient, x, weight, tape.padding, mask)[1:])
        else:
            sums = [_widened(gradient, width, dim=0) for gradient in tape.sums]
        tape.clear()
        if not sums:
            return None, None, None
        return sums[0], sums[1] if ctx.has_bias else None, None


class _Step(torch.autograd.Function):
    """One step's convolution; weight and bias come without a graph, their gradient goes over the tape."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, weight: Tensor, bias: Tensor | None, tape: _Tape
    ) -> Tensor:
        ctx.tape, ctx.has_bias = tape, bias is not None
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=tape.padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None, None]:
        x, weight = ctx.saved_tensors
        wanted, padding = ctx.needs_input_grad[0], ctx.tape.padding
        of_x: Tensor | None = None
        if is_small(x):
            ctx.tape.add(x, gradient)
            if wanted:
                of_x = _conv_backward(gradient, x, weight, padding, [True, False, False])[0]
        else:
            of_x, of_weight, of_bias = _conv_backward(
                gradient, x, weight, padding, [wanted, True, ctx.has_bias]
            )
            ctx.tape.add_gradients(of_weight, of_bias if ctx.has_bias else None)
        return of_x if wanted else None, weight.new_zeros(()), None, None, None


def _conv_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, padding: int, mask: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, [weight.shape[0]], [1, 1], [padding] * 2, [1, 1], False, [0, 0], 1, mask
    )


def stacked(convs: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor | None]:
    """Weights and biases of several convolutions, one after the other along output channels."""
    biases = [conv.bias for conv in convs if conv.bias is not None]
    if len(convs) == 1:
        return convs[0].weight, convs[0].bias
    return torch.cat([conv.weight for conv in convs]), torch.cat(biases) if biases else None


def is_small(x: Tensor) -> bool:
    """Whether a map has too few positions for a convolution of it alone to be efficient.

    Measured on two CPU cores, float32: from 27 x 27 maps of 8 images on, joining steps gains less than the
    copies cost.
    """
    return x.shape[0] * x.shape[2] * x.shape[3] < 4096


def _widened(gradient: Tensor, channels: int, dim: int = 1) -> Tensor:
    """Zeros for the channels that a step left out."""
    missing = channels - gradient.shape[dim]
    if not missing:
        return gradient
    shape = [*gradient.shape[:dim], missing, *gradient.shape[dim + 1 :]]
    return torch.cat([gradient, gradient.new_zeros(shape)], dim)


def _joined(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
