"""A search over recorded learning curves: the same conductor, sampler and scheduler, no training and no Ray.

Time is simulated: a trial's next report comes when its epoch would have ended, so that trials in parallel
slots report in the order in which they would have.
"""

from __future__ import annotations

import csv
import heapq
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from search.conductor import Conductor
from search.schedulers import Decision
from search.spec import SearchSpec
from search.study import SearchStudy
from trainable.metrics import DIVERGED, EPOCH, FINISHED

IMAGES = 1437
"""Training images of the digits: what an epoch of a recorded curve has seen."""


class Curves:
    """A table of recorded curves: one line per configuration, its settings and then `MEASURE_EPOCH` columns.

    Args:
        path: CSV file as benchmarks/record_curves.py writes it.
        epochs: Epochs of a whole curve; a shorter one diverged.
    """

    def __init__(self, path: Path, epochs: int) -> None:
        self.epochs = epochs
        with path.open() as file:
            lines = list(csv.DictReader(file))
        measures = {name: name.rpartition("_") for name in lines[0] if name.rpartition("_")[2].isdecimal()}
        self._settings = [name for name in lines[0] if name not in measures]
        self._rates = sorted({float(line["learning_rate"]) for line in lines})
        self._curves: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for line in lines:
            rows: list[dict[str, Any]] = []
            for epoch in range(1, epochs + 1):
                row = {
                    kind: float(line[name])
                    for name, (kind, _, at) in measures.items()
                    if at == str(epoch) and line[name]
                }
                if not row:
                    break
                steps = IMAGES * int(line["time_steps"]) * epoch
                rows.append({EPOCH: epoch, "image_steps": steps, **row})
            if len(rows) < epochs or not math.isfinite(rows[-1]["val_loss"]):
                rows[-1][DIVERGED] = "nan_loss"
            else:
                rows[-1][FINISHED] = True
            self._curves[self._key({**line, "learning_rate": float(line["learning_rate"])})] = rows

    def rows(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """The reports of a run with these settings; of the recorded learning rates the nearest one counts."""
        nearest = min(self._rates, key=lambda rate: abs(math.log(rate / values["learning_rate"])))
        return self._curves[self._key({**values, "learning_rate": nearest})]

    def _key(self, values: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(values[name]) for name in self._settings)

    def __len__(self) -> int:
        return len(self._curves)


@dataclass(frozen=True)
class Step:
    """The search after one more complete trial."""

    image_steps: float
    """Compute spent by all trials until then: training images times time steps."""

    best: float
    """Best first objective among complete trials."""


@dataclass(frozen=True)
class Simulation:
    """A search that was simulated to its end."""

    study: SearchStudy
    steps: list[Step]
    image_steps: float
    """Compute of the whole search."""

    seconds: float
    """Simulated wall time."""

    @property
    def best(self) -> float:
        """Best first objective among complete trials; nan without any."""
        return self.steps[-1].best if self.steps else math.nan

    def compute_to(self, value: float) -> float:
        """Compute until a complete trial was at least as good as `value`; infinite if none was."""
        sign = self.study.spec.search.sign
        return next((s.image_steps for s in self.steps if sign * s.best >= sign * value), math.inf)


def simulate(spec: SearchSpec, curves: Curves, slots: int = 4) -> Simulation:
    """Run a search to its end with `slots` trials at a time."""
    study = SearchStudy(Path("/simulated/search"), spec, InMemoryStorage())
    conductor = Conductor(study)
    waiting: list[tuple[float, int, int]] = []  # when a report comes, whose it is, of which epoch
    done: dict[int, int] = {}  # epochs of each trial
    steps: list[Step] = []
    spent = clock = 0.0
    best = -math.inf
    rows: dict[int, list[dict[str, Any]]] = {}

    def start() -> None:
        while len(waiting) < slots and (trial := conductor.next()) is not None:
            number = trial.number
            rows[number] = curves.rows(study.config(trial).model_dump())
            schedule(number)

    def schedule(number: int) -> None:
        index = done.get(number, 0)
        heapq.heappush(waiting, (clock + rows[number][index]["seconds"], number, index))

    start()
    while waiting:
        clock, number, index = heapq.heappop(waiting)
        row = rows[number][index]
        done[number] = index + 1
        spent += row["image_steps"] - (rows[number][index - 1]["image_steps"] if index else 0)
        decision = conductor.report(number, row)
        trial = study.trial(number)
        if decision is Decision.CONTINUE and not trial.state.is_finished():
            schedule(number)
        elif trial.state == TrialState.COMPLETE:
            best = max(best, spec.search.sign * trial.values[0])
            steps.append(Step(spent, spec.search.sign * best))
        start()
    return Simulation(study, steps, spent, clock)
