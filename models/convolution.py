"""Convolutions: how they are made, how they start, and how the time steps of a forward pass share them.

Shape letters: N images, C channels, Y x X feature map.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class MeanConv2d(nn.Conv2d):
    """An unpadded convolution of stride 1, averaged over its positions: (N, C_in, Y, X) to (N, C_out).

    The mean of a convolution is the product of its kernel with the mean of its windows, one position
    whatever the map. As a product of matrices, in the order that the weights have in memory, it is spared
    the copies of the weights that a convolution makes: measured on two CPU cores, float32, 512 to 1000
    channels on a 3x3 map of 8 images, 4 ms instead of 19 forward and backward.
    """

    def forward(self, input: Tensor) -> Tensor:
        (height, width), (y, x) = self.kernel_size, input.shape[2:]
        window = F.avg_pool2d(input, (y - height + 1, x - width + 1), stride=1)
        weight = self.weight
        if weight.is_contiguous(memory_format=torch.channels_last):
            window, weight = window.permute(0, 2, 3, 1), weight.permute(0, 2, 3, 1)
        return F.linear(window.flatten(1), weight.flatten(1), self.bias)


class StateConv:
    """A convolution of a state, for all time steps of one forward pass; the state keeps its size.

    Args:
        weight: (C_out, C_in, k, k), k odd or even.
        bias: (C_out,) or None.
        reflect: Pad by reflection instead of zeros; by repeating the border where a map is too small.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, reflect: bool = False) -> None:
        self._weight, self._bias = _in_autocast(weight), None if bias is None else _in_autocast(bias)
        total = weight.shape[-1] - 1
        self._pads = (total // 2, total - total // 2)
        self._mode = "reflect" if reflect else "constant"

    def __call__(self, x: Tensor) -> Tensor:
        before, after = self._pads
        padding = before
        if before != after or self._mode != "constant":
            mode = "replicate" if self._mode == "reflect" and min(x.shape[2:]) <= after else self._mode
            if after:
                x = F.pad(x, (before, after, before, after), mode=mode)
            padding = 0
        return F.conv2d(x, self._weight, self._bias, padding=padding)

    def of_zeros(self, like: Tensor) -> Tensor:
        """What the convolution makes of an all-zero map: the bias, (C_out, 1, 1), without the work."""
        assert self._bias is not None
        return self._bias.to(like.dtype).view(-1, 1, 1)


class GateConvs:
    """Convolutions of the same map, one per gate, for all time steps of one forward pass.

    On a GPU they are one launch, with their weights stacked once. On a CPU they stay apart: measured there,
    float32, stacking saves nothing on large maps, costs up to half of the speed on small ones (the weights
    leave the cache), and the gates then have to be copied out of the stack and their gradients into it.

    Args:
        convs: All of one shape.
        sign: Factor of their outputs, 1 or -1.
    """

    def __init__(self, *convs: nn.Conv2d, sign: int = 1) -> None:
        self._stride, self._padding = convs[0].stride, convs[0].padding
        self._channels = convs[0].out_channels
        weights: list[Tensor] = [conv.weight for conv in convs]
        biases: list[Tensor] = [conv.bias for conv in convs if conv.bias is not None]
        assert len(biases) == len(convs)
        self._stacked = stacks_gates(weights[0].device)
        if self._stacked:
            weights, biases = [torch.cat(weights)], [torch.cat(biases)]
        self._weights = [_in_autocast(sign * weight if sign < 0 else weight) for weight in weights]
        self._biases = [_in_autocast(sign * bias if sign < 0 else bias) for bias in biases]

    def __call__(self, x: Tensor, count: int | None = None) -> tuple[Tensor, ...]:
        """The output of each convolution, or of the first `count`."""
        if self._stacked:
            width = None if count is None else count * self._channels
            weight, bias = self._weights[0][:width], self._biases[0][:width]
            return F.conv2d(x, weight, bias, self._stride, self._padding).split(self._channels, dim=1)
        pairs = zip(self._weights[:count], self._biases[:count], strict=True)
        return tuple(F.conv2d(x, weight, bias, self._stride, self._padding) for weight, bias in pairs)

    def plus(self, x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """The output of each convolution plus another map: tensors of their own, free to be changed."""
        pairs = zip(self(x), others, strict=True)
        # In place spares a map; autograd forbids it for the parts of a stack.
        return tuple(a + b if self._stacked else a.add_(b) for a, b in pairs)

    def sigmoids(self, x: Tensor, count: int | None = None) -> tuple[Tensor, ...]:
        """The sigmoid of each output, or of the first `count`."""
        return tuple(torch.sigmoid(a) if self._stacked else a.sigmoid_() for a in self(x, count))

    def of_zeros(self, like: Tensor) -> tuple[Tensor, ...]:
        """What each convolution makes of an all-zero map: its bias, (C, 1, 1), without the work."""
        biases = self._biases[0].split(self._channels) if self._stacked else self._biases
        return tuple(bias.to(like.dtype).view(-1, 1, 1) for bias in biases)


def stacks_gates(device: torch.device) -> bool:
    """Whether gates of the same map are one convolution on this device."""
    return device.type == "cuda"


def _in_autocast(parameter: Tensor) -> Tensor:
    """The parameter as autocast would convert it for a convolution, once instead of in every step."""
    device = parameter.device.type
    # The meta device, on which a run's shapes are checked beforehand, knows no autocast and raises.
    if device == "meta" or not torch.is_autocast_enabled(device):
        return parameter
    return parameter.to(torch.get_autocast_dtype(device))


def is_small(x: Tensor) -> bool:
    """Whether a map has too few positions for a convolution of it alone to be efficient.

    Measured on two CPU cores, float32, 3x3 kernels, 8 images: joining seven steps gains 20 % on 6x6 maps,
    nothing on 13x13 and costs 20 % on 27x27, for the copies.
    """
    return x.shape[0] * x.shape[2] * x.shape[3] < 1024
