"""Normalizations of feature maps, and how batch statistics are kept when a map is computed T times or once.

Shape letters: N images, C channels, Y x X feature map, T time steps.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from models.blocks import require_choice


class BatchNormPerStep(nn.Module):
    """A batch normalization of its own for every trained time step (Cooijmans et al. 2017, arXiv:1603.09025).

    A state's statistics change over time, most of all in the first steps; one set of running statistics for
    all of them fits none in eval. Steps beyond those trained use the last one's.

    Args:
        channels: C.
        time_steps: T, the number of sets of weights and statistics.
        weight: First value of every scale.
    """

    def __init__(self, channels: int, time_steps: int, weight: float = 1.0) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_with_weight(nn.BatchNorm2d(channels), weight) for _ in range(time_steps))

    def forward(self, x: Tensor, t: int = 0) -> Tensor:
        return self.steps[min(t, len(self.steps) - 1)](x)


PER_STEP = "batchnorm_per_step"

NORMALIZATIONS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batchnorm": nn.BatchNorm2d,
    PER_STEP: lambda channels: BatchNormPerStep(channels, 1),
    # One group: mean and variance over C, Y and X of each image, a scale and a shift per channel.
    "layernorm": lambda channels: nn.GroupNorm(1, channels),
    "instancenorm": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "groupnorm": lambda channels: nn.GroupNorm(math.gcd(32, channels), channels),
}


def make_norm(name: str | None, channels: int, weight: float = 1.0, time_steps: int = 1) -> nn.Module:
    """A normalization of (N, C, Y, X) with every scale at `weight`; None and "none" change nothing.

    `time_steps` is the number of steps that "batchnorm_per_step" tells apart.
    """
    name = name or "none"
    require_choice("normalization", name, NORMALIZATIONS)
    if name == PER_STEP:
        return BatchNormPerStep(channels, time_steps, weight)
    return _with_weight(NORMALIZATIONS[name](channels), weight)


def normalize(norm: nn.Module, x: Tensor, t: int) -> Tensor:
    """`norm` of the map of time step t, in the precision of x (statistics are summed in float32)."""
    if isinstance(norm, nn.Identity):
        return x
    y = norm(x, t) if isinstance(norm, BatchNormPerStep) else norm(x)
    return y.to(x.dtype)


def keeps_statistics(norm: nn.Module) -> bool:
    """Whether calling `norm` leaves a trace in training, so that it must be called for nobody's sake too."""
    batch_norms = [m for m in norm.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return any(m.track_running_stats and m.training for m in batch_norms)


def smallest_map(name: str | None, channels: int) -> int:
    """Side of the smallest map that make_norm's result takes: a single position has no variance."""
    alone = name == "instancenorm" or (name == "groupnorm" and math.gcd(32, channels) == channels)
    return 2 if alone else 1


@contextmanager
def batch_statistics_counted(module: nn.Module, times: int) -> Iterator[None]:
    """Make one forward pass leave the running statistics that `times` passes over the same batch leave.

    With momentum m and batch statistic s, T updates r <- (1 - m) r + m s end at
    (1 - m)^T r + (1 - (1 - m)^T) s, which is one update of momentum 1 - (1 - m)^T. So a block whose
    input does not change over time can be computed once and still train to the same statistics; and with
    times = 0 a pass that is only repeated for its gradients leaves no trace.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    norms = [m for m in norms if m.training and m.track_running_stats and m.momentum is not None]
    if times == 1 or not norms:
        yield
        return
    momenta = [norm.momentum for norm in norms]
    counts = [None if n.num_batches_tracked is None else n.num_batches_tracked.clone() for n in norms]
    try:
        for norm, momentum in zip(norms, momenta, strict=True):
            assert momentum is not None
            norm.momentum = 1.0 - (1.0 - momentum) ** times
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                passes = norm.num_batches_tracked - count
                norm.num_batches_tracked.copy_(count + passes * times)


def _with_weight(norm: nn.Module, weight: float) -> nn.Module:
    for name, parameter in norm.named_parameters():
        nn.init.constant_(parameter, weight if name == "weight" else 0.0)
    return norm
