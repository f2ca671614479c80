"""How a model is executed, memory format and compilation, with the same mathematics and the same weights."""

from typing import Any

import torch
from torch import Tensor, nn

from models.blocks import require_choice
from models.cells import Cell

COMPILE = ("off", "step", "model")


def prepare_model(model: nn.Module, *, compile: str = "off", channels_last: bool = False) -> nn.Module:
    """The same model, changed in place, executed as asked; call it after moving it to its device.

    Parameters and the keys of its state_dict stay as they are.

    Args:
        compile: "off"; "step", compile the time step of every cell, which takes seconds and serves any
            number of steps; "model", compile the whole forward pass, slower to compile and anew for every T.
            Models without cells are compiled whole in both cases.
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
    cells = [module for module in model.modules() if isinstance(module, Cell) and module.recurrent]
    if compile == "step" and cells:
        for cell in cells:
            # An attribute of the instance hides the method; modules save neither.
            cell.step = torch.compile(cell.step, dynamic=False)  # type: ignore[method-assign]
    elif compile != "off":
        model.compile()
    return model


def _images_channels_last(
    model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(_channels_last(a) for a in arguments), {k: _channels_last(v) for k, v in keywords.items()}


def _channels_last(value: Any) -> Any:
    if isinstance(value, Tensor) and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value
