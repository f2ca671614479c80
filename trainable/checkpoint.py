"""What a checkpoint holds, how it is written so that no kill can tear it, and how it is read back."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainable import atomic

Position = tuple[int, int]
"""Where in a run a checkpoint stands: (epochs done, optimizer steps done in the epoch after them)."""


class CheckpointStore:
    """The checkpoints of one run: `epoch_0005_step_000000.pt` with a seal beside it, the newest few kept.

    The seal (.json) holds size and SHA-256 and is written last: a checkpoint without a matching seal does
    not exist. So a process may be killed at any instant, and a file that a disk tore later is noticed.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        """Args: folder: where the files lie, made on first save; keep: how many newest ones stay."""
        self.folder = folder
        self.keep = keep

    def save(self, position: Position, content: dict[str, Any], *, best: bool = False) -> Path:
        """Write the checkpoint of `position` and forget the oldest beyond `keep`.

        Args:
            position: Where the run stands.
            content: Plain data and tensors. Copied before the call returns: the run may go on at once.
            best: Whether this is the best epoch so far.
        """
        buffer = io.BytesIO()
        torch.save(content, buffer)
        data = buffer.getvalue()
        path = self._path(position)
        seal = {
            "position": list(position),
            "best": best,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        # Overwriting in place would leave the old seal beside the new file for an instant.
        path.with_suffix(".json").unlink(missing_ok=True)
        atomic.write_bytes(path, data)
        atomic.write_json(path.with_suffix(".json"), seal)
        for old in self._seals()[self.keep :]:
            old.unlink(missing_ok=True)
            old.with_suffix(".pt").unlink(missing_ok=True)
        return path

    def wait(self) -> None:
        """Return when everything saved is on disk."""

    def load_latest(self, map_location: str | torch.device = "cpu") -> dict[str, Any] | None:
        """Read the newest intact checkpoint, or None; each damaged one is passed over with a warning."""
        for seal in self._seals():
            path = seal.with_suffix(".pt")
            try:
                return _read_sealed(path, map_location)
            except (OSError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
                warnings.warn(f"checkpoint {path} is damaged ({error}); using the one before", stacklevel=2)
        return None

    def load(self, position: Position, map_location: str | torch.device = "cpu") -> dict[str, Any]:
        """Read the checkpoint of `position`; raises OSError or ValueError where it is missing or damaged."""
        return _read_sealed(self._path(position), map_location)

    def _path(self, position: Position) -> Path:
        epoch, step = position
        return self.folder / f"epoch_{epoch:04d}_step_{step:06d}.pt"

    def _seals(self) -> list[Path]:
        """Seals, the furthest position first."""
        return sorted(self.folder.glob("epoch_*.json"), key=_position_of, reverse=True)


def _position_of(path: Path) -> Position:
    _, epoch, _, step = path.stem.split("_")
    return int(epoch), int(step)


def _read_sealed(path: Path, map_location: str | torch.device) -> dict[str, Any]:
    expected = json.loads(path.with_suffix(".json").read_text())
    data = path.read_bytes()
    if len(data) != expected["bytes"]:
        raise ValueError(f"{len(data)} bytes instead of {expected['bytes']}")
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise ValueError("its checksum is wrong")
    content: dict[str, Any] = torch.load(io.BytesIO(data), map_location=map_location, weights_only=True)
    return content


def random_states() -> dict[str, Any]:
    """The state of every random generator a worker draws from, as plain data."""
    _, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Continue every random generator where `random_states` left it."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def export_weights(path: Path, weights: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Write a state_dict for `load_state_dict(strict=True)`, and beside it PATH.json saying what it is.

    Args:
        path: File of the weights.
        weights: state_dict on the CPU.
        about: Config, preprocessing, classes and metrics, as plain data.
    """
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    atomic.write_json(path.with_name(path.name + ".json"), about)
    atomic.write_bytes(path, buffer.getvalue())
