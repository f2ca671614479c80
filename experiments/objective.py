"""Shape as an objective: what a search can measure of a network at the end of a trial.

    measure(network, preprocessing, class_names, time_steps, metrics=("shape_bias",), dataset="digits")
    -> {"shape_bias": 0.41}

A metric is `shape_bias`, or `NAME_acc` for the accuracy on the stimulus NAME: silhouette_acc,
frankenstein_acc, ... All are fractions, better when larger. The same network and arguments give the same
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from torch import nn

from data import Preprocessing
from experiments.errors import InputError
from experiments.forward import decide, logits_over_time, stateless, to_input
from experiments.sources import Source, class_of_outputs, open_source
from experiments.stimuli.conflict import cue_conflict, shape_bias, texture_partners
from experiments.stimuli.item import Pixels
from experiments.stimuli.make import STIMULI, Protocol, make_stimulus

METRICS = ("shape_bias", *(f"{stimulus}_acc" for stimulus in STIMULI))

BATCH = 64


def measure(
    network: nn.Module,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    time_steps: int,
    *,
    metrics: Sequence[str] = METRICS,
    dataset: str = "digits",
    path: str | None = None,
    split: str = "val",
    protocol: Protocol = "thesis",
    decision: str = "argmax",
    limit: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Value of each metric for a network in memory, on the device it is on; its mode is left as it was.

    Args:
        network: Called as model(images, time_steps, return_all=True).
        preprocessing: What the network was trained on.
        class_names: Name of each output.
        time_steps: Decisions are those after this step.
        metrics: Of METRICS.
        dataset, path, split, protocol, limit: See experiments.sources.open_source. The stimuli are made once
            per process and kept: a later trial only runs the network.
        decision: Rule of experiments.forward.DECISIONS.
        seed: Of noise, and of which shape gets which texture.

    Where no decision follows shape or texture, shape_bias is 0: such a network must not win a search.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise InputError(f"unknown metric {unknown[0]!r}; known are {', '.join(METRICS)}")
    size = preprocessing.image_size
    source = _source(dataset, path, split, protocol, limit)
    outputs = class_of_outputs(source, class_names)
    classes = source.class_ids
    training = network.training
    network.eval()
    try:
        values: dict[str, float] = {}
        for name in metrics:
            if name == "shape_bias":
                pixels, textures = _conflicts(source, size, seed)
                made = _decisions(network, pixels, preprocessing, time_steps, outputs, decision)
                bias = shape_bias(made, classes, textures).value
                values[name] = 0.0 if np.isnan(bias) else bias
            else:
                stimuli = _stimuli(source, name.removesuffix("_acc"), size, protocol, seed)
                made = _decisions(network, stimuli, preprocessing, time_steps, outputs, decision)
                values[name] = float((made == classes).mean())
        return values
    finally:
        network.train(training)


def _decisions(
    network: nn.Module,
    pixels: np.ndarray,
    preprocessing: Preprocessing,
    time_steps: int,
    outputs: np.ndarray,
    decision: str,
) -> np.ndarray:
    device = next(network.parameters()).device
    steps = [1 if stateless(network) else time_steps]
    made = []
    for start in range(0, len(pixels), BATCH):
        images = to_input(pixels[start : start + BATCH], preprocessing, device)
        made.append(decide(logits_over_time(network, images, steps)[0], outputs, decision))
    return np.concatenate(made)


@lru_cache(maxsize=4)
def _source(dataset: str, path: str | None, split: str, protocol: str, limit: int | None) -> Source:
    return open_source(dataset, path, split=split, protocol=protocol, limit=limit)


@lru_cache(maxsize=8)
def _stimuli(source: Source, stimulus: str, size: int, protocol: Protocol, seed: int) -> np.ndarray:
    made: list[Pixels] = [
        make_stimulus(source.load(i), stimulus, size, protocol=protocol, seed=seed)
        for i in range(len(source))
    ]
    return np.stack(made)


@lru_cache(maxsize=2)
def _conflicts(source: Source, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    partners = texture_partners(source.class_ids, seed)
    pixels = [cue_conflict(source.load(i), source.load(int(j)), size) for i, j in enumerate(partners)]
    return np.stack(pixels), source.class_ids[partners]
