"""Parts that cells and towers share: normalization, activation, convolution, spatial dropout.

Shape letters: N images, C channels, Y x X feature map.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def require_choice(what: str, value: object, allowed: Iterable[str]) -> None:
    """Raise the ValueError a user sees for a name that no registry knows."""
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"unknown {what} {value!r}; allowed: {', '.join(allowed)}")


# --- activation ---------------------------------------------------------------------------------------------


class Activation(NamedTuple):
    """A nonlinearity and the gain that its input weights want."""

    function: Callable[[Tensor], Tensor]
    gain: float
    """Standard deviation of a weight, in units of 1/sqrt(fan), that keeps the size of a signal."""


# relu, tanh, sigmoid: torch.nn.init.calculate_gain, which knows none of the others.
# elu, gelu, silu: 1 / sqrt(E f(z)^2), z ~ N(0, 1); the same formula gives relu its sqrt(2).
ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(F.relu, math.sqrt(2.0)),
    "elu": Activation(F.elu, 1.2452),
    "tanh": Activation(torch.tanh, 5.0 / 3.0),
    "sigmoid": Activation(torch.sigmoid, 1.0),
    "gelu": Activation(F.gelu, 1.5335),
    "silu": Activation(F.silu, 1.6765),
}


def get_activation(name: str) -> Activation:
    require_choice("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


# --- normalization ------------------------------------------------------------------------------------------

NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batchnorm": nn.BatchNorm2d,
    # One group: mean and variance over C, Y and X of each image, a scale and a shift per channel.
    "layernorm": lambda channels: nn.GroupNorm(1, channels),
    "instancenorm": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "groupnorm": lambda channels: nn.GroupNorm(math.gcd(32, channels), channels),
}


def make_norm(name: str | None, channels: int, weight: float = 1.0) -> nn.Module:
    """A normalization of (N, C, Y, X) with every scale at `weight`; None and "none" change nothing."""
    name = name or "none"
    require_choice("normalization", name, NORMALIZATIONS)
    norm = NORMALIZATIONS[name](channels)
    for parameter_name, parameter in norm.named_parameters():
        nn.init.constant_(parameter, weight if parameter_name == "weight" else 0.0)
    return norm


@contextmanager
def batch_statistics_counted(module: nn.Module, times: int) -> Iterator[None]:
    """Make one forward pass leave the running statistics that `times` passes over the same batch leave.

    With momentum m and batch statistic s, T updates r <- (1 - m) r + m s end at
    (1 - m)^T r + (1 - (1 - m)^T) s, which is one update of momentum 1 - (1 - m)^T. So a block whose
    input does not change over time can be computed once and still train to the same statistics.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [m for m in norms if m.training and m.track_running_stats and m.momentum is not None]
    if times == 1 or not norms:
        yield
        return
    momenta = [norm.momentum for norm in norms]
    try:
        for norm, momentum in zip(norms, momenta, strict=True):
            assert momentum is not None
            norm.momentum = 1.0 - (1.0 - momentum) ** times
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(times - 1)


# --- convolution --------------------------------------------------------------------------------------------


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


def fused_conv(convs: list[nn.Conv2d], x: Tensor) -> Tensor:
    """The outputs of several convolutions of the same x, stacked along channels, in one launch."""
    weight = torch.cat([conv.weight for conv in convs])
    bias = torch.cat([conv.bias for conv in convs if conv.bias is not None])
    return F.conv2d(x, weight, bias, convs[0].stride, convs[0].padding)


def conv_of_zeros(conv: nn.Conv2d, like: Tensor) -> Tensor:
    """What `conv` makes of an all-zero map: its bias, (C, 1, 1), without the multiplications by zero."""
    assert conv.bias is not None
    return conv.bias.to(like.dtype).view(-1, 1, 1)


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


# --- dropout ------------------------------------------------------------------------------------------------


class SpatialDropout(nn.Module):
    """Drop whole channels (Tompson et al. 2015, arXiv:1411.4280), the same ones all along a sequence.

    A pixel's neighbours carry nearly its value, so single pixels are no loss; a channel is. Kept channels
    are scaled by 1 / (1 - p). The mask is drawn from torch's global generator of x's device.

        mask = dropout.mask(x)                      # once per forward pass
        for t in range(T): x_t = dropout(x_t, mask)

    Args:
        p: Probability of dropping a channel of one image, 0 <= p < 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1, got {p}")
        self.p = p

    def mask(self, x: Tensor) -> Tensor | None:
        """An (N, C, 1, 1) factor for x and maps like it; None where dropout changes nothing (eval, p = 0)."""
        if not self.training or self.p == 0.0:
            return None
        keep = 1.0 - self.p
        return x.new_empty(x.shape[0], x.shape[1], 1, 1).bernoulli_(keep).div_(keep)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            mask = self.mask(x)
        return x if mask is None else x * mask

    def extra_repr(self) -> str:
        return f"p={self.p}"
