"""A copy of a run's state in CPU memory, to be written while training goes on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def snapshot(content: Any) -> Any:
    """Copy `content` (dicts, lists, tuples, tensors, plain data) so that nothing of it changes any more.

    Tensors on a GPU go to page-locked memory: all copies are started, then waited for once.
    """
    copied = _copy(content)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return copied


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _copy_tensor(value.detach())
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    if type(value) is tuple:
        return tuple(_copy(item) for item in value)
    return value


def _copy_tensor(tensor: Tensor) -> Tensor:
    if tensor.device.type == "cpu":
        return tensor.clone()
    target = torch.empty_like(tensor, device="cpu", pin_memory=tensor.device.type == "cuda")
    return target.copy_(tensor, non_blocking=True)
