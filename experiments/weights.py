"""Weights files and the .json beside them, as run_train.py and run_search.py write them."""

from __future__ import annotations

import glob
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data import Preprocessing
from experiments.errors import InputError
from models import build_model


@dataclass(frozen=True)
class Weights:
    """A weights file, and what the .json beside it says of it. The weights themselves are read by `model`."""

    path: Path
    sha256: str
    config: dict[str, Any]
    """Settings of the run; build_model reads the architecture from them."""

    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    metrics: dict[str, Any]
    """Last metrics of the training run."""

    @property
    def label(self) -> str:
        """A name for folders and figures, unique to the file's content: FOLDER-FILE-HASH."""
        return f"{self.path.parent.name}-{self.path.stem}-{self.sha256[:8]}"

    @property
    def time_steps(self) -> int:
        """Time steps it was trained with."""
        return int(self.config.get("time_steps", 1))

    def model(self, device: torch.device) -> nn.Module:
        """The network in evaluation mode. Raises InputError where the weights don't fit the settings."""
        content = _read(self.path)
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # what is no pickle fails in any way
            raise InputError(f"{self.path}: not a weights file ({_line(error)})") from None
        try:
            network = build_model(self.config, len(self.class_names))
            network.load_state_dict(state)
        except (ValueError, RuntimeError, AttributeError, TypeError) as error:
            raise InputError(f"{self.path}: does not fit {_beside(self.path)} ({_line(error)})") from None
        return network.to(device).eval()


def read_weights(path: str | Path) -> Weights:
    """Read what is known of a weights file; InputError names the file or key that is wrong."""
    path = Path(path).expanduser().absolute()
    digest = hashlib.sha256(_read(path)).hexdigest()
    beside = _beside(path)
    try:
        about = json.loads(_read(beside))
        preprocessing = Preprocessing.from_dict(about["preprocessing"])
        names = tuple(str(name) for name in about["class_names"])
        config = dict(about["config"])
        metrics = dict(about.get("metrics") or {})
    except KeyError as error:
        raise InputError(f"{beside}: has no key {error}; run_train.py --out writes it") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{beside}: not what run_train.py --out writes ({_line(error)})") from None
    return Weights(path, digest, config, preprocessing, names, metrics)


def find_weights(patterns: Sequence[str]) -> list[Weights]:
    """Weights files from paths and glob patterns, each content once, sorted by path."""
    found: dict[str, Weights] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        # A file may be called what is a pattern too, as in runs/[a]/best.weights.
        matches = [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))
        if not matches and glob.has_magic(pattern):
            raise InputError(f"--weights: no file matches {pattern}")
        for match in matches or [pattern]:
            if match.endswith(".json"):
                continue
            weights = read_weights(match)
            found.setdefault(weights.sha256, weights)
    if not found:
        raise InputError(f"--weights: no weights file among {', '.join(patterns)}")
    return sorted(found.values(), key=lambda weights: weights.path)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"no file at {path}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
