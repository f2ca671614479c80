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
from pathlib import Path

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
    from data import open_data
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
    data = open_data(dataset, dataset_path=train_path, dataset_val_path=path, batch_size=1, image_size=size)
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
    batch_size = min(settings.batch_size, data.info.num_train)
    data = open_data(
        dataset, dataset_path=train_path, dataset_val_path=path, batch_size=batch_size, image_size=size
    )
    model = weights.model(device)
    steps = parse_steps(settings.time_steps, weights.time_steps, stateless(model))
    hits, images = dict.fromkeys(steps, 0), 0
    for batch, labels in data.validation.epoch(0):
        images += len(labels)
        labels = labels.to(device)
        for step, logits in zip(steps, logits_over_time(model, batch.to(device), steps), strict=True):
            known = logits.isfinite().all(dim=1)  # no class is the strongest of values that are no numbers
            hits[step] += int(((logits.argmax(dim=1) == labels) & known).sum())
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
    figures.save(figures.accuracy_figure(result, weights.label), target)
    write_result(target, result)


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
    return run(arguments, evaluate, settings, "accuracy.json")


if __name__ == "__main__":
    # Ray tasks must find `evaluate` in the module, not in the script.
    from experiments.accuracy import main as command

    sys.exit(command())
