"""Claim: a run killed at random instants ends with the weights of an uninterrupted one, bit by bit.

Trains a small ConvRNN on the digits sample, with a checkpoint every few steps, in a process that is killed
again and again at random instants and started again each time; compares weights and result rows with those
of a run nobody killed. Prints a row per kill, exits with 1 on any difference.

    python benchmarks/chaos_train.py --kills 50
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch

from trainable.checkpoint import CheckpointStore, Position
from trainable.config import TrainConfig
from trainable.loop import WEIGHTS_FILE, train
from trainable.session import LocalSession
from trainable.tracking import read_rows

SETTINGS: dict[str, Any] = {
    "dataset": "digits",
    "cell_type": "rnn",
    "skip_first": True,
    "filters": [4, 8],
    "pools": [True, True],
    "first_kernel": 3,
    "first_stride": 2,
    "batch_size": 64,
    "learning_rate": 0.01,
    "time_steps": 2,
    "normalization": "batchnorm",
    "dropout": 0.1,
    "lr_scheduler": "cosine",
    "checkpoint_interval": 2,
    "checkpoint_every_steps": 5,
}

TIMES = {"images_per_second", "seconds_per_image", "wait_seconds", "seconds", "peak_memory_gib"}
"""What of a row no two runs have in common."""


def forkserver() -> ForkServerContext:
    """Children of a process that has imported torch already: a kill costs milliseconds, not seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainable.loop", "data.ffcv_loader", "torch.utils.tensorboard"])
    return context


def child(settings: dict[str, Any], folder: Path) -> None:
    """Train as a process of its own, to the end or to its death."""
    train(TrainConfig(**settings), LocalSession(folder, device=torch.device("cpu")))


def chaos(
    settings: dict[str, Any], folder: Path, kills: int, seed: int, pace: float
) -> list[Position | None]:
    """Train in `folder` under SIGKILLs; returns where the run stood on the disk after each of them.

    Args:
        settings: TrainConfig; long enough to survive so many kills.
        folder: Folder of the run.
        kills: SIGKILLs before the run is left in peace.
        seed: Of the instants.
        pace: Seconds a process lives at most after its start, or after its first checkpoint.
    """
    context, rng = forkserver(), random.Random(seed)
    positions: list[Position | None] = []
    while len(positions) < kills:
        process = context.Process(target=child, args=(settings, folder))
        process.start()
        # A quarter of the kills come whenever they come, also while the process restores its state.
        if rng.random() < 0.75:
            before = _newest(folder)
            while process.is_alive() and _newest(folder) in (before, None):
                time.sleep(0.002)
        time.sleep(pace * rng.random())
        if not process.is_alive():
            raise RuntimeError(f"the run ended after {len(positions)} of {kills} kills: give it more epochs")
        process.kill()
        process.join()
        positions.append(_newest(folder))
    process = context.Process(target=child, args=(settings, folder))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"the run ended with {process.exitcode} after {kills} kills")
    return positions


def differences(folder: Path, other: Path) -> list[str]:
    """Names of weights and numbers of rows that differ between two ended runs; times don't count."""
    one, two = (torch.load(f / WEIGHTS_FILE, weights_only=True) for f in (folder, other))
    found = [
        name for name in {**one, **two} if name not in one or name not in two or not _same(one, two, name)
    ]
    rows, others = (
        [{k: v for k, v in row.items() if k not in TIMES} for row in read_rows(f)] for f in (folder, other)
    )
    if len(rows) != len(others):
        found.append(f"{len(rows)} rows instead of {len(others)}")
    return found + [f"row {a['epoch']}" for a, b in zip(rows, others, strict=False) if a != b]


def _same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], name: str) -> bool:
    return torch.equal(one[name], two[name])


def _newest(folder: Path) -> Position | None:
    return next(iter(CheckpointStore(folder / "checkpoints").positions()), None)


def main() -> int:
    """Kill, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default: 0)")
    parser.add_argument("--pace", type=float, default=0.5, help="longest life in seconds (default: 0.5)")
    parser.add_argument("--epochs", type=int, help="epochs of the run (default: 2 per kill)")
    arguments = parser.parse_args()
    settings = {**SETTINGS, "epochs": arguments.epochs or 2 * arguments.kills}
    with tempfile.TemporaryDirectory() as scratch:
        folder, whole = Path(scratch) / "killed", Path(scratch) / "whole"
        started = time.perf_counter()
        positions = chaos(settings, folder, arguments.kills, arguments.seed, arguments.pace)
        for number, position in enumerate(positions, start=1):
            where = f"epoch {position.epoch:4d}, step {position.step:3d}" if position else "no checkpoint yet"
            print(f"kill {number:3d}: {where}")
        killed = time.perf_counter() - started
        child(settings, whole)
        found = differences(folder, whole)
    lost = sum(a == b for a, b in zip(positions, positions[1:], strict=False))
    within = sum(position is not None and position.step > 0 for position in positions)
    print(
        f"{len(positions)} kills in {killed:.0f} s, {within} left a checkpoint within an epoch, "
        f"{lost} processes died before their first checkpoint"
    )
    print(f"differences to an uninterrupted run: {', '.join(found) or 'none'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
