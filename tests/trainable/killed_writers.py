"""Processes that save checkpoints until they are killed; started through multiprocessing's forkserver."""

import multiprocessing
import os
import signal
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch

from trainable.checkpoint import CheckpointStore


def forkserver() -> ForkServerContext:
    """Children of a process that has imported torch already: they start in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trainable.killed_writers", "trainable.loop"])
    return context


def content(epoch: int) -> dict[str, Any]:
    """A state that shows whether it is whole: every number of it is the epoch."""
    return {"epoch": epoch, "weights": torch.full((50_000,), float(epoch))}


def save_forever(folder: Path) -> None:
    """Go on from the newest checkpoint, one epoch after the other, without a pause."""
    with CheckpointStore(folder) as store:
        newest = store.load_latest()
        epoch = newest["epoch"] if newest else 0
        while True:
            epoch += 1
            store.save((epoch, 0), content(epoch), best=epoch == 20)


def save_twice_and_die(folder: Path, at: int) -> None:
    """Save epochs 3 (again) and 4; SIGKILL comes just before the `at`-th call that touches the folder."""
    calls = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        if event in ("open", "os.rename", "os.remove", "os.chmod") and str(folder) in str(arguments[0]):
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)

    with CheckpointStore(folder) as store:
        sys.addaudithook(hook)
        store.save((3, 0), content(3))
        store.save((4, 0), content(4))
