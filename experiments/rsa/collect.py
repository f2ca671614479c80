"""RDMs of every layer and time step in one pass, or in as few as the memory allows.

Squared distances are sums over channels, so activations of a few channels of all stimuli are enough to go on.
The states of all layers and steps are cut into slices of channels; each pass over the stimuli keeps as many
slices as fit into the memory budget, adds them to the RDMs and forgets them.

Shape letters: N stimuli, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.errors import InputError
from experiments.rsa.rdm import RDMAccumulator

Key = tuple[str, int]
"""Layer and time step."""

Batches = Callable[[], Iterable[dict[Key, Tensor]]]
"""Starts a pass: yields the states (B, units) of one batch of stimuli after the other."""


@dataclass(frozen=True)
class _Slice:
    key: Key
    first: int
    last: int

    @property
    def width(self) -> int:
        return self.last - self.first


def collect_rdms(batches: Batches, stimuli: int, memory: int) -> dict[Key, NDArray[np.float64]]:
    """RDMs (P,) of every layer and time step that the batches hold.

    Args:
        batches: Starts a pass; every pass must yield the same stimuli in the same order.
        stimuli: N.
        memory: Bytes of activations to keep at a time; one channel of all stimuli at least is kept.

    Raises:
        InputError: activations are not finite.
    """
    first = next(iter(batches()))
    units = {key: state.shape[1] for key, state in first.items()}
    element = max(state.element_size() for state in first.values())
    channels = max(1, memory // (stimuli * element))
    accumulators = {key: RDMAccumulator(stimuli) for key in units}
    for part in _passes(units, channels):
        kept = {piece: torch.empty(0) for piece in part}
        row = 0
        for states in batches():
            size = len(next(iter(states.values())))
            for piece in part:
                values = states[piece.key][:, piece.first : piece.last]
                if row == 0:
                    kept[piece] = values.new_empty((stimuli, piece.width))
                kept[piece][row : row + size] = values
            row += size
        assert row == stimuli
        for piece, values in kept.items():
            accumulators[piece.key].add(values)
    rdms: dict[Key, NDArray[np.float64]] = {}
    for (layer, step), accumulator in accumulators.items():
        try:
            rdms[layer, step] = accumulator.vector()
        except ValueError as error:
            raise InputError(f"{layer} after time step {step}: {error}") from None
    return rdms


def _passes(units: dict[Key, int], channels: int) -> list[list[_Slice]]:
    """Slices of all states, packed in order into passes of at most `channels` channels."""
    passes: list[list[_Slice]] = [[]]
    room = channels
    for key, count in units.items():
        start = 0
        while start < count:
            if room == 0:
                passes.append([])
                room = channels
            width = min(room, count - start)
            passes[-1].append(_Slice(key, start, start + width))
            start += width
            room -= width
    return passes
