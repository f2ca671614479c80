"""Validation accuracy of trained networks after every time step, and what they cost.

    python -m experiments.accuracy --weights runs/fgru/best.weights
    python -m experiments.accuracy --weights 'runs/*/best.weights' --dataset ffcv --path val.beton
    --time-steps 1-15

The validation images are those of the training run unless --dataset and --path name others of the same
classes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from experiments.errors import InputError
from experiments.runner import EPILOG, Settings, add_arguments, guarded, run, settings_of
from experiments.weights import Weights


class AccuracySettings(Settings):
    """Settings of experiments.accuracy."""

    dataset: str | None = None
    """Keyword of a data set of training runs; None: that of the weights."""

    path: str | None = None
    """Its validation file; None: that of the weights."""

    time_steps: str | None = None
    batch_size: int = Field(default=64, ge=1)


def evaluate(weights: Weights, settings: AccuracySettings, target: Path, device: torch.device) -> None:
    """Write the result file `target` and its CSV and figures beside it."""
    from data import LoadingOptions, open_data
    from experiments import complexity, figures
    from experiments.forward import logits_over_time, parse_steps, stateless
    from experiments.results import AccuracyResult, AccuracyRow, provenance, write_result
    from experiments.statistics import accuracy_interval
    from experiments.stimuli.evaluate import trends_of

    started = time.perf_counter()
    size = weights.preprocessing.image_size
    dataset = settings.dataset or str(weights.config.get("dataset"))
    train_path, path = weights.config.get("dataset_path"), weights.config.get("dataset_val_path")
    if settings.dataset or settings.path:
        # Only validation images are read; loaders want a training file too.
        train_path = path = settings.path
    # That of the run: ffcv is not everywhere.
    options = LoadingOptions(loader=weights.config.get("loader", "ffcv"))
    given: dict[str, Any] = {
        "dataset_path": train_path,
        "dataset_val_path": path,
        "image_size": size,
        "options": options,
    }
    data = open_data(dataset, batch_size=1, **given)
    if data.preprocessing != weights.preprocessing:
        raise InputError(
            f"--dataset: {dataset} is shown with {data.preprocessing}, but {weights.path} was trained with "
            f"{weights.preprocessing}"
        )
    if data.info.num_classes > len(weights.class_names):
        raise InputError(
            f"--dataset: {dataset} has {data.info.num_classes} classes, {weights.path} knows "
            f"{len(weights.class_names)}"
        )
    names, known = data.info.class_names, weights.class_names
    if (i := other_class(names, known)) is not None:
        raise InputError(
            f"--dataset: class {i} of {dataset} is {names[i]!r}, that of {weights.path} is {known[i]!r}; the "
            "classes must be the same"
        )
    batch_size = min(settings.batch_size, data.info.num_train)
    data = open_data(dataset, batch_size=batch_size, **given)
    model = weights.model(device)
    steps = parse_steps(settings.time_steps, weights.time_steps, stateless(model))
    hits, images = dict.fromkeys(steps, 0), 0
    for batch, labels in data.validation.epoch(0):
        images += len(labels)
        labels = labels.to(device)
        for step, logits in zip(steps, logits_over_time(model, batch.to(device), steps), strict=True):
            # No class is the strongest of values that are not finite.
            decided = logits.argmax(dim=1).where(logits.isfinite().all(dim=1), -1)
            hits[step] += int((decided == labels).sum())
    rows = []
    for step in steps:
        low, high = accuracy_interval(hits[step], images)
        rows.append(
            AccuracyRow(
                time_step=step,
                images=images,
                hits=hits[step],
                accuracy=hits[step] / images,
                low=low,
                high=high,
                macs=complexity.macs(model, size, step),
            )
        )
    speed = complexity.images_per_second(model, size, steps[-1], batch_size)
    result = AccuracyResult(
        provenance=provenance(weights, settings.model_dump(mode="json"), time.perf_counter() - started),
        data={"dataset": dataset, "path": data.info.validation_path, "images": images},
        rows=rows,
        trends=trends_of({"validation": [row.accuracy for row in rows]}),
        parameters=complexity.parameters(model),
        images_per_second=speed,
        device=str(device),
    )
    target.unlink(missing_ok=True)  # an older one says that the files beside it are its own
    figures.save(figures.accuracy_figure(result, weights.label), target)
    write_result(target, result)


def other_class(names: Sequence[str], known: Sequence[str]) -> int | None:
    """Position of the first class of a data set that a network knows by another name; None if there is none.

    Classes that are only numbered, as in files without names, can be any.
    """
    numbers = [str(i) for i in range(len(names))]
    pairs = list(zip(names, known, strict=False))
    if numbers in (list(names), list(known[: len(names)])):
        return None
    return next((i for i, (name, other) in enumerate(pairs) if name != other), None)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.accuracy",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("--dataset", metavar="NAME", help="of a training configuration, such as ffcv")
    parser.add_argument("--path", metavar="FILE", help="its validation images")
    parser.add_argument("--time-steps", metavar="1-15", help="default: 1 to those of the training")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="images per pass (default: 64)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse_arguments(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    settings = settings_of(AccuracySettings, arguments)

    def check() -> None:
        from experiments.forward import parse_steps

        parse_steps(settings.time_steps, 1, stateless=False)

    return run(arguments, evaluate, settings, "accuracy.json", check)


if __name__ == "__main__":
    # Ray tasks must find `evaluate` in the module, not in the script.
    from experiments.accuracy import main as command

    sys.exit(command())
