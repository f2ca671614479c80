"""Names and nonlinearities that cells and towers share."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def require_choice(what: str, value: object, allowed: Iterable[str]) -> None:
    """Raise the ValueError a user sees for a name that no registry knows."""
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"unknown {what} {value!r}; allowed: {', '.join(allowed)}")


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
