"""Sessions that stop a run where a test wants it stopped, and a run in a line."""

from pathlib import Path
from typing import Any

import torch

from trainable.config import TrainConfig
from trainable.loop import WEIGHTS_FILE, train
from trainable.session import LocalSession

Weights = dict[str, torch.Tensor]

TIMES = {"images_per_second", "seconds_per_image", "wait_seconds", "seconds", "peak_memory_gib"}
"""What of a row no two runs have in common."""


class Killed(Exception):
    """Stands for a SIGKILL: nothing after it runs."""


class DyingSession(LocalSession):
    """Dies, or stops, when it is asked for the n-th time in this process; or dies in a report."""

    def __init__(
        self, folder: Path, *, dies: int = -1, stops: int = -1, dies_in_report: int = -1, threads: int = 1
    ) -> None:
        super().__init__(folder, threads=threads, device=torch.device("cpu"))
        self.dies, self.stops, self.dies_in_report = dies, stops, dies_in_report
        self.asked = 0

    def stop_requested(self) -> bool:
        """Asked in every step of training and every batch of validation."""
        self.asked += 1
        if self.asked == self.dies:
            raise Killed
        return self.asked == self.stops

    def report(self, metrics: dict[str, Any]) -> None:
        super().report(metrics)
        if metrics["epoch"] == self.dies_in_report:
            raise Killed


def run(folder: Path, settings: dict[str, Any]) -> tuple[Weights, LocalSession]:
    """Train to the end; the weights and the session with its reports."""
    session = LocalSession(folder, device=torch.device("cpu"))
    train(TrainConfig(**settings), session)
    return torch.load(folder / WEIGHTS_FILE, weights_only=True), session


def assert_same(a: Weights, b: Weights) -> None:
    """Bit by bit."""
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as two runs can share them."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
