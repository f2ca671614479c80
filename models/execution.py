"""How a model is executed, memory format and compilation, with the same mathematics and the same weights."""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from models.blocks import require_choice
from models.cells import Cell
from models.cells.hgru import HGRUCircuit
from models.gammanet import GammaNetCore
from models.normalization import BatchNormPerStep

COMPILE = ("off", "step", "model")
# Of each step that is compiled: without a state and with one, the last step, in training and validation, for
# a full batch and the rest of an epoch.
VARIANTS = 16


def prepare_model(model: nn.Module, *, compile: str = "off", channels_last: bool = False) -> nn.Module:
    """The same model, changed in place, executed as asked; call it after moving it to its device.

    Parameters and the keys of its state_dict stay as they are.

    Args:
        compile: "off"; "step", compile the time step of every cell, or of a gamma-net, which takes seconds
            and serves any number of steps (each anew where it has a norm or a scale of its own);
            "model", compile the whole forward pass, slower to compile and anew for every T. Models without
            time steps are compiled whole in both cases.
        channels_last: Keep feature maps with their channels innermost in memory, which tensor cores and
            bfloat16 want.
    """
    require_choice("compile", compile, COMPILE)
    if compile == "model" and getattr(model, "recompute", False):
        raise ValueError(
            'compile "model" and recompute exclude each other: a compiled model plans its own memory; '
            'use compile "step" or recompute false'
        )
    if channels_last:
        model.to(memory_format=torch.channels_last)
        model.register_forward_pre_hook(_images_channels_last, with_kwargs=True)
    stepping = [
        m for m in model.modules() if isinstance(m, GammaNetCore) or (isinstance(m, Cell) and m.recurrent)
    ]
    if compile == "step" and stepping:
        _allow_graphs(model, len(stepping))
        for module in stepping:
            # An attribute of the instance hides the method. Bound anew, so that a copy of the module steps
            # with its own weights; state_dict does not see it, and what is pickled is not compiled.
            step = torch.compile(type(module).step, dynamic=False)
            module.step = MethodType(step, module)  # type: ignore[method-assign]
    elif compile != "off":
        model.compile()
    return model


def _allow_graphs(model: nn.Module, modules: int) -> None:
    """Let torch keep a graph for every variant of every step; beyond its limit it runs them uncompiled.

    It counts per function, whatever module it belongs to.
    """
    import torch._dynamo.config as dynamo  # with torch's compiler, which takes seconds

    lengths: Sequence[int] = [
        *(len(m.steps) for m in model.modules() if isinstance(m, BatchNormPerStep)),
        *(len(m.n) for m in model.modules() if isinstance(m, HGRUCircuit) and not m.batchnorm),
    ]
    graphs = VARIANTS * modules * max(lengths, default=1)
    dynamo.recompile_limit = max(dynamo.recompile_limit, graphs)
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, graphs)


def _images_channels_last(
    model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(_channels_last(a) for a in arguments), {k: _channels_last(v) for k, v in keywords.items()}


def _channels_last(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value
