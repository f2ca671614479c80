"""What a network makes of the stimuli: decisions per image, accuracies, permutation tests."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from experiments import figures
from experiments.forward import (
    decide,
    logits_over_time,
    parse_steps,
    stateless,
    stimulus_batches,
    to_input,
)
from experiments.results import (
    StimuliResult,
    StimulusRow,
    TrendRow,
    provenance,
    write_csv,
    write_result,
)
from experiments.runner import Settings
from experiments.sources import NO_CLASS, Source, class_of_outputs, open_source
from experiments.statistics import (
    Permutations,
    accuracy_interval,
    balanced_accuracy,
    benjamini_hochberg,
    chance_accuracy,
    trend,
)
from experiments.stimuli.make import STIMULI, Aspect, Protocol
from experiments.weights import Weights

Decisions = dict[str, dict[int, np.ndarray]]
"""Stimulus, time step -> (N,) class decisions."""


class StimuliSettings(Settings):
    """Settings of experiments.stimuli."""

    dataset: str
    path: str | None = None
    split: str = "trainval"
    limit: int | None = Field(default=None, ge=1)
    stimuli: tuple[str, ...] = STIMULI
    protocol: Protocol = "thesis"
    aspect: Aspect = "stretch"
    decision: str = "argmax"
    """A rule of experiments.forward.DECISIONS."""

    time_steps: str | None = None
    permutations: int = Field(default=10_000, ge=1)
    batch_size: int = Field(default=64, ge=1)


def decisions_on_stimuli(
    weights: Weights, source: Source, settings: StimuliSettings, device: torch.device
) -> tuple[Decisions, list[str]]:
    """Class decisions on every stimulus after every time step, and the images' names."""
    model = weights.model(device)
    outputs = class_of_outputs(source, weights.class_names)
    steps = parse_steps(settings.time_steps, weights.time_steps, stateless(model))
    decisions: Decisions = {}
    names: list[str] = []
    for stimulus in settings.stimuli:
        parts: dict[int, list[np.ndarray]] = {step: [] for step in steps}
        names = []
        for pixels, batch_names in stimulus_batches(
            source,
            stimulus,
            weights.preprocessing.image_size,
            settings.batch_size,
            protocol=settings.protocol,
            seed=settings.seed,
            aspect=settings.aspect,
        ):
            names += batch_names
            images = to_input(pixels, weights.preprocessing, device)
            for step, logits in zip(steps, logits_over_time(model, images, steps), strict=True):
                parts[step].append(decide(logits, outputs, settings.decision))
        decisions[stimulus] = {step: np.concatenate(chunks) for step, chunks in parts.items()}
    return decisions, names


def rows_of(decisions: Decisions, classes: np.ndarray, permutations: int, seed: int) -> list[StimulusRow]:
    """Accuracy and tests of every stimulus and time step."""
    test = Permutations(classes, permutations, seed)
    rows: list[StimulusRow] = []
    steps = next(iter(decisions.values()))
    for step in steps:
        partial = []
        for stimulus, by_step in decisions.items():
            made = by_step[step]
            hits = int((made == classes).sum())
            null = test.null_hits(made)
            values, counts = np.unique(null, return_counts=True)
            low, high = accuracy_interval(hits, len(classes))
            partial.append(
                {
                    "stimulus": stimulus,
                    "time_step": step,
                    "images": len(classes),
                    "hits": hits,
                    "accuracy": hits / len(classes),
                    "low": low,
                    "high": high,
                    "balanced_accuracy": balanced_accuracy(made, classes),
                    "chance": chance_accuracy(made, classes),
                    "p": (int((null >= hits).sum()) + 1) / (permutations + 1),
                    "null": list(zip(values.tolist(), counts.tolist(), strict=True)),
                }
            )
        adjusted = benjamini_hochberg([row["p"] for row in partial])  # type: ignore[misc]
        rows += [
            StimulusRow(**row, p_adjusted=float(p))  # type: ignore[arg-type]
            for row, p in zip(partial, adjusted, strict=True)
        ]
    return rows


def trends_of(series: dict[str, list[float]]) -> list[TrendRow]:
    """Whether each series rises over time steps; none for a single step."""
    if not series or len(next(iter(series.values()))) < 2:
        return []
    found = {what: trend(values) for what, values in series.items()}
    adjusted = benjamini_hochberg([one.p for one in found.values()])
    return [
        TrendRow(
            what=what,
            tau=None if np.isnan(one.tau) else one.tau,
            p=one.p,
            p_adjusted=float(p),
            method=one.method,
        )
        for (what, one), p in zip(found.items(), adjusted, strict=True)
    ]


def evaluate(weights: Weights, settings: StimuliSettings, target: Path, device: torch.device) -> None:
    """Write the result file `target`, its CSV, DECISIONS and figures beside it."""
    started = time.perf_counter()
    source = open_source(
        settings.dataset,
        settings.path,
        split=settings.split,
        protocol=settings.protocol,
        limit=settings.limit,
    )
    decisions, names = decisions_on_stimuli(weights, source, settings, device)
    rows = rows_of(decisions, source.class_ids, settings.permutations, settings.seed)
    result = StimuliResult(
        provenance=provenance(weights, settings.model_dump(mode="json"), time.perf_counter() - started),
        data=source.about,
        rows=rows,
        trends=trends_of(
            {
                stimulus: [row.accuracy for row in rows if row.stimulus == stimulus]
                for stimulus in settings.stimuli
            }
        ),
    )
    write_csv(target.with_name(f"{target.stem}-decisions.csv"), _table(weights, source, decisions, names))
    figures.save(figures.stimuli_figure(result, weights.label), target)
    write_result(target, result)


def _table(
    weights: Weights, source: Source, decisions: Decisions, names: list[str]
) -> list[dict[str, object]]:
    """Decisions in the columns of model-vs-human, and the time step."""

    def name_of(class_id: int) -> str:
        return "none" if class_id == NO_CLASS else source.class_names[class_id]

    return [
        {
            "subj": weights.label,
            "session": 1,
            "trial": trial,
            "rt": "NaN",
            "object_response": name_of(int(response)),
            "category": name_of(int(source.class_ids[trial - 1])),
            "condition": stimulus,
            "imagename": names[trial - 1],
            "time_step": step,
        }
        for stimulus, by_step in decisions.items()
        for step, responses in by_step.items()
        for trial, response in enumerate(responses, start=1)
    ]
