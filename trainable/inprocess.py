"""A one-worker trial inside Ray Tune's own trial process: no process of its own, no polling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import tune

from trainable.config import TrainConfig
from trainable.loop import train
from trainable.session import LocalSession


class TuneSession(LocalSession):
    """A LocalSession that reports to Ray Tune; the scheduler may end the trial inside `report`."""

    def report(self, metrics: dict[str, Any]) -> None:
        """Hand the metrics to Tune and wait until it lets the trial go on."""
        tune.report(metrics)


def run_trial(trial: dict[str, Any]) -> None:
    """Ray Tune function trainable; `trial` holds `config` (TrainConfig), `folder` and `threads`."""
    train(TrainConfig(**trial["config"]), TuneSession(Path(trial["folder"]), threads=trial["threads"]))
