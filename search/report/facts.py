"""All that the report knows of a search, read once from its folder: no Ray, no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.conditions import settings
from search.lineage import lineage
from search.report.results import train_command
from search.schedulers import Scheduler, build_scheduler
from search.spec import SearchSpec
from search.study import SearchStudy, cause, trial_name
from search.winner import best_trial, pareto_front
from trainable import atomic
from trainable.errors import ConfigError
from trainable.metrics import DIVERGED, EPOCH
from trainable.tracking import read_rows

FATES = ("complete", "pruned", "diverged", "failed", "running")
"""How a trial can stand; `pruned` was stopped early by the scheduler."""


@dataclass(frozen=True)
class TrialFacts:
    """One trial."""

    number: int
    fate: str
    cause: str
    drawn: dict[str, Any]
    """Its parameters as the trial used them."""

    rows: list[dict[str, Any]]
    """What it reported, a row per epoch."""

    @property
    def name(self) -> str:
        """Its folder's name."""
        return trial_name(self.number)

    @property
    def epochs(self) -> int:
        """Epochs done."""
        return int(self.rows[-1][EPOCH]) if self.rows else 0

    @property
    def seconds(self) -> float:
        """Time spent in its epochs."""
        return float(sum(row.get("seconds", 0.0) for row in self.rows))

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """(epoch, value) wherever the value is finite."""
        pairs = [(int(row[EPOCH]), float(row[metric])) for row in self.rows if metric in row]
        return [pair for pair in pairs if math.isfinite(pair[1])]

    def last(self, metric: str) -> float:
        """The last finite value; nan without any."""
        curve = self.curve(metric)
        return curve[-1][1] if curve else math.nan


@dataclass(frozen=True)
class SearchFacts:
    """A search."""

    folder: Path
    spec: SearchSpec
    trials: list[TrialFacts]
    best: TrialFacts | None
    front: list[TrialFacts]
    """Trials on the Pareto front, where there are several objectives."""

    study: SearchStudy
    scheduler: Scheduler
    """The scheduler, after all that happened."""

    @property
    def metric(self) -> str:
        """The first objective."""
        return self.spec.search.primary

    def of(self, *fates: str) -> list[TrialFacts]:
        """Trials with one of these fates."""
        return [trial for trial in self.trials if trial.fate in fates]

    def saved(self, trial: TrialFacts) -> float:
        """Seconds that a trial's end before its last epoch saved, at its own mean time per epoch."""
        if trial.fate not in ("pruned", "diverged") or not trial.epochs:
            return 0.0
        missing = self.spec.config(trial.drawn).max_epochs - trial.epochs
        return max(0, missing) * trial.seconds / trial.epochs

    def command(self, trial: TrialFacts) -> str:
        """What repeats a trial on its own, exactly: every setting is in its params.json.

        Where its weights came from other trials, no command does: then a comment that says from which.
        """
        way = lineage(self.study, trial.number)
        if len(way) > 1:
            return f"# {trial.name}: " + ", then ".join(map(str, way))
        return f"{train_command(self.study, f'{trial.name}/params.json')} --out {trial.name}.weights --fresh"


def read_facts(study: SearchStudy) -> SearchFacts:
    """Read a search; a trial that never wrote its settings gets its params.json here."""
    trials = [_trial(study, trial) for trial in study.trials()]
    by_number = {trial.number: trial for trial in trials}
    best = best_trial(study)
    return SearchFacts(
        folder=study.folder,
        spec=study.spec,
        trials=trials,
        best=by_number[best.number] if best else None,
        front=[by_number[trial.number] for trial in pareto_front(study)],
        study=study,
        scheduler=_scheduler(study),
    )


def _scheduler(study: SearchStudy) -> Scheduler:
    """Lead a scheduler through the recorded reports, as a resumed search does."""
    scheduler = build_scheduler(study.spec)
    for event in study.events():
        if event.kind == "report" and math.isfinite(event.data["values"][0]):
            value = study.spec.search.sign * event.data["values"][0]
            scheduler.report(event.number, event.data["resource"], value)
        elif event.kind in ("promote", "exploit"):
            scheduler.promoted(event.number)
    return scheduler


def _trial(study: SearchStudy, trial: FrozenTrial) -> TrialFacts:
    folder = study.folder / trial_name(trial.number)
    rows = read_rows(folder)
    params = study.params(trial)
    values = settings(study.spec.space, study.spec.train, params)
    if trial.state.is_finished() and not (folder / "params.json").exists():
        try:
            whole = study.config(trial).model_dump(mode="json")
        except ConfigError:
            whole = values  # why the trial ended: the command that repeats it says so again
        atomic.write_json(folder / "params.json", whole)
    return TrialFacts(
        number=trial.number,
        fate=_fate(trial, rows),
        cause=cause(trial),
        drawn={name: values[name] for name in study.spec.space if name in params},
        rows=rows,
    )


def _fate(trial: FrozenTrial, rows: list[dict[str, Any]]) -> str:
    if trial.state == TrialState.COMPLETE:
        return "complete"
    if not trial.state.is_finished():
        return "running"
    if rows and DIVERGED in rows[-1]:
        return "diverged"
    return "failed" if trial.state == TrialState.FAIL or cause(trial) else "pruned"
