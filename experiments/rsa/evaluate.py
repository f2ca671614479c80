"""Representational similarity of a network: how alike it represents photos and the stimuli made of them."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from experiments import figures
from experiments.errors import InputError
from experiments.forward import parse_steps, stateless, states_over_time, stimulus_batches, to_input
from experiments.results import RSAResult, RSARow, provenance, write_bytes, write_result
from experiments.rsa.bootstrap import FEWEST_CLASSES, bootstrap_rho_a, draw, rho_a
from experiments.rsa.collect import Key, collect_rdms
from experiments.rsa.rdm import label_rdm
from experiments.rsa.weighted import bootstrap_weighted
from experiments.runner import Settings
from experiments.sources import Source, open_source
from experiments.statistics import benjamini_hochberg, summarize_bootstrap
from experiments.stimuli.evaluate import trends_of
from experiments.stimuli.make import STIMULI, Aspect, Protocol
from experiments.weights import Weights

BASELINE = "normal"
"""The stimulus whose RDM is the data; all others are models of it."""

LABELS = "label"
"""Model RDM of the classes: 0 within a class, equal between classes."""

IMAGE: Key = ("image", 0)
"""The pixels the network sees, as a layer before the first."""

RDMs = dict[str, dict[Key, NDArray[np.float64]]]
"""Stimulus, (layer, time step) -> (P,) dissimilarities."""


class RSASettings(Settings):
    """Settings of experiments.rsa."""

    dataset: str
    path: str | None = None
    split: str = "trainval"
    limit: int | None = Field(default=None, ge=1)
    stimuli: tuple[str, ...] = STIMULI
    protocol: Protocol = "thesis"
    aspect: Aspect = "stretch"
    time_steps: str | None = None
    batch_size: int = Field(default=64, ge=1)
    method: Literal["fixed", "weighted"] = "fixed"
    """fixed: rho-a. weighted: Pearson, non-negative weights, cross-validated over classes."""

    bootstrap: Literal["classes", "images"] = "classes"
    """What is drawn with replacement."""

    bootstraps: int = Field(default=1000, ge=1)
    memory: float = Field(default=4.0, gt=0)
    """GiB of activations kept at a time."""


def compute_rdms(
    weights: Weights, source: Source, settings: RSASettings, device: torch.device
) -> tuple[RDMs, NDArray[np.int64], list[str]]:
    """RDMs of all stimuli, layers and steps; the class and the name of every image, sorted by class."""
    model = weights.model(device)
    steps = parse_steps(settings.time_steps, weights.time_steps, stateless(model))
    order = np.argsort(source.class_ids, kind="stable")
    names: list[str] = []
    rdms: RDMs = {}
    for stimulus in settings.stimuli:

        def batches(stimulus: str = stimulus) -> Iterator[dict[Key, Tensor]]:
            names.clear()
            for pixels, batch_names in stimulus_batches(
                source,
                stimulus,
                weights.preprocessing.image_size,
                settings.batch_size,
                protocol=settings.protocol,
                seed=settings.seed,
                aspect=settings.aspect,
                order=order,
            ):
                names.extend(batch_names)
                images = to_input(pixels, weights.preprocessing, device)
                yield {IMAGE: images.flatten(1), **states_over_time(model, images, steps)}

        rdms[stimulus] = collect_rdms(batches, len(source), int(settings.memory * 2**30))
    return rdms, source.class_ids[order], names


def compare(rdms: RDMs, classes: NDArray[np.int64], settings: RSASettings) -> list[RSARow]:
    """Rows of every layer, step and stimulus; adjusted p-values per time step."""
    groups = np.unique(classes, return_inverse=True)[1].astype(np.int64)
    if settings.bootstrap == "images":
        groups = np.arange(len(classes))
    draws = draw(int(groups.max()) + 1, settings.bootstraps, settings.seed)
    labels = label_rdm(classes, int(classes.max()) + 1)
    others = [stimulus for stimulus in settings.stimuli if stimulus != BASELINE]
    rows: list[dict[str, Any]] = []
    for key, data in rdms[BASELINE].items():
        models = np.stack([*(rdms[stimulus][key] for stimulus in others), labels])
        if settings.method == "fixed":
            values = [rho_a(data, model) for model in models]
            evaluations = bootstrap_rho_a(data, models, groups, draws)
        else:
            values = [_pearson(data, model) for model in models]
            evaluations = bootstrap_weighted(
                data, [model[None] for model in models], groups, draws, seed=settings.seed
            )
        for column, stimulus in enumerate([*others, LABELS]):
            summary = summarize_bootstrap(evaluations[:, column])
            rows.append(
                {
                    "layer": key[0],
                    "time_step": key[1],
                    "stimulus": stimulus,
                    "value": values[column],
                    "mean": _finite(summary.mean),
                    "low": _finite(summary.low),
                    "high": _finite(summary.high),
                    "p": summary.p_zero,
                    "draws": summary.draws,
                }
            )
    adjusted = np.ones(len(rows))
    for step in {row["time_step"] for row in rows}:
        at = [i for i, row in enumerate(rows) if row["time_step"] == step]
        adjusted[at] = benjamini_hochberg([rows[i]["p"] for i in at])
    return [RSARow(**row, p_adjusted=float(p)) for row, p in zip(rows, adjusted, strict=True)]


def evaluate(weights: Weights, settings: RSASettings, target: Path, device: torch.device) -> None:
    """Write the result file `target`, its CSV, its RDMs (.npz) and figures beside it."""
    started = time.perf_counter()
    if BASELINE not in settings.stimuli or len(settings.stimuli) < 2:
        raise InputError(f"--stimuli: RSA compares others with {BASELINE!r}; give it and at least one more")
    source = open_source(
        settings.dataset,
        settings.path,
        split=settings.split,
        protocol=settings.protocol,
        limit=settings.limit,
    )
    if len(np.unique(source.class_ids)) < FEWEST_CLASSES:
        raise InputError(f"--dataset: RSA needs images of at least {FEWEST_CLASSES} classes")
    rdms, classes, names = compute_rdms(weights, source, settings, device)
    rows = compare(rdms, classes, settings)
    series: dict[str, list[float]] = {}
    for row in sorted(rows, key=lambda row: row.time_step):
        if row.layer != "image":
            series.setdefault(f"{row.layer} {row.stimulus}", []).append(row.value)
    changing = {what: values for what, values in series.items() if len(values) > 1}
    result = RSAResult(
        provenance=provenance(weights, settings.model_dump(mode="json"), time.perf_counter() - started),
        data=source.about,
        method="rho-a" if settings.method == "fixed" else "Pearson, cross-validated over classes",
        rows=rows,
        trends=trends_of(changing),
    )
    write_bytes(target.with_suffix(".npz"), _packed(rdms, classes, names, source))
    figures.save(figures.rsa_figure(result, weights.label), target)
    write_result(target, result)


def read_rdms(path: Path) -> tuple[dict[str, NDArray[np.float64]], list[str], list[str]]:
    """RDMs by "STIMULUS/LAYER/tSTEP", class names and image names, from an .npz file of this analysis.

    For rsatoolbox: to_rsatoolbox(*read_rdms(path)) of experiments.rsa.toolbox.
    """
    with np.load(path) as content:
        rdms = {name: content[name] for name in content.files if "/" in name}
        return rdms, content["classes"].tolist(), content["images"].tolist()


def _packed(rdms: RDMs, classes: NDArray[np.int64], names: list[str], source: Source) -> bytes:
    buffer = io.BytesIO()
    arrays = {
        f"{stimulus}/{layer}/t{step}": vector
        for stimulus, of_layers in rdms.items()
        for (layer, step), vector in of_layers.items()
    }
    class_names = np.array([source.class_names[i] for i in classes])
    np.savez_compressed(buffer, classes=class_names, images=np.array(names), **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    constant = np.ptp(x) == 0 or np.ptp(y) == 0
    return 0.0 if constant else float(np.corrcoef(x, y)[0, 1])


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
