"""Weights files: a plain state_dict that the original code reads too, and `FILE.json` saying what it is."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainable import atomic, sealed

_MODEL_KEYS = ("model", "model_state_dict", "state_dict")
_SHOWN = 8


class WeightsError(ValueError):
    """A weights file cannot be used; the message says why, and what does not fit."""


def export_weights(path: Path, weights: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write a state_dict for `load_state_dict(strict=True)`, and beside it PATH.json saying what it is.

    Args:
        path: File of the weights.
        weights: state_dict on the CPU.
        about: Config, preprocessing, classes, metrics and versions, as plain data.

    Raises:
        StorageError: the storage is full, gone or read-only.
    """
    # Where the weights are, their description is too: it comes first.
    atomic.write_json(described(path), about)
    with atomic.writing(path) as file:
        sealed.dump(weights, file)


def described(path: Path) -> Path:
    """The file that says what the weights in `path` are."""
    return path.with_name(path.name + ".json")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state_dict; that of a checkpoint is taken out of it, prefixes of wrappers are removed.

    Raises:
        WeightsError: no such file, not a file of tensors, or no state_dict in it.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except Exception as error:  # bytes that are no pickle raise whatever they happen to spell
        raise WeightsError(f"{path}: {_why_unreadable(error)}") from None
    for key in _MODEL_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(v, Tensor) for v in content.values())
    ):
        raise WeightsError(f"{path}: holds no state_dict (names and tensors)")
    return {_bare(str(name)): value for name, value in content.items()}


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load `path` into `model`, every name and shape as it is there; raises WeightsError otherwise."""
    weights = read_weights(path)
    check_fit(model, weights, path)
    model.load_state_dict(weights, strict=True)


def check_fit(model: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Check names and shapes; `model` may lie on the meta device.

    Raises:
        WeightsError: names what is missing, unexpected, or of another shape, and what to look at.
    """
    expected = model.state_dict()
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    shapes = [
        f"{name} is {_shape(weights[name])} there and {_shape(expected[name])} here"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    problems = [
        f"{kind}: {', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("other shape", shapes))
        if names
    ]
    if problems:
        raise WeightsError(
            f"{path}: does not fit the network{_written_for(Path(path))}; {'; '.join(problems)}"
        )


def _written_for(path: Path) -> str:
    """Which network the file was written for, where its description is beside it."""
    try:
        config = json.loads(described(path).read_text())["config"]
        return f" (written for cell_type {config['cell_type']}, model_base {config['model_base']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _bare(name: str) -> str:
    # Both wrappers may be there, in either order; torch.compile may also have wrapped a part of the network.
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


def _why_unreadable(error: Exception) -> str:
    foreign = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
    if foreign:
        return f"holds a {foreign[1]}, and only tensors are loaded; save model.state_dict() alone"
    if isinstance(error, OSError) and error.strerror and error.errno != errno.EINVAL:
        return f"cannot be read: {error.strerror}"
    return "is damaged, or no file of torch.save"
