"""How a search stands, running or dead: read from its folder, without Ray and without touching anything."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta

from optuna.trial import TrialState
from rich.console import Console

from search.study import SearchStudy, trial_name
from trainable.tracking import RESULT_FILE, read_rows


@dataclass(frozen=True)
class Cost:
    """What a search has used."""

    seconds: float
    """Time in epochs, over all trials."""

    cpus: int
    """Cores of a trial, over its workers."""

    gpus: float
    """GPUs of a trial, over its workers."""

    def __str__(self) -> str:
        """CPU-hours, and GPU-hours where GPUs are asked for."""
        hours = self.seconds / 3600
        text = f"{hours * self.cpus:.2f} CPU-hours"
        return f"{text}, {hours * self.gpus:.2f} GPU-hours" if self.gpus else text


def cost(study: SearchStudy) -> Cost:
    """Time of all epochs done, those of running trials included."""
    seconds = sum(
        row.get("seconds", 0.0)
        for trial in study.trials()
        for row in read_rows(study.folder / trial_name(trial.number))
    )
    return Cost(seconds, *study.resources)


def remaining(ended: int, missing: int, elapsed: float) -> timedelta | None:
    """How long the missing trials will take at the pace of those that ended; None before the first."""
    return timedelta(seconds=round(elapsed / ended * missing)) if ended and elapsed > 0 else None


def print_status(study: SearchStudy, console: Console) -> None:
    """Whether it runs, which trials are under way, what it has cost, when it will be done."""
    alive = study.place.is_running()
    ended, missing = study.finished(), max(0, study.target - len(study.finished()))
    state = "running" if alive else "done" if not missing else "not running; the same command resumes it"
    console.print(f"{study.place}: {state}", soft_wrap=True)
    for trial in study.unfinished():
        rows = read_rows(study.folder / trial_name(trial.number))
        reported = study.reports(trial.number)
        path = study.folder / trial_name(trial.number) / RESULT_FILE
        age = f", {time.time() - path.stat().st_mtime:.0f} s ago" if rows and path.exists() else ""
        value = f"{study.spec.search.primary} {reported[-1].values[0]:.4f}" if reported else "no report yet"
        console.print(f"  {trial_name(trial.number)}  epoch {len(rows)}  {value}{age}", highlight=False)
    counts = {
        s: sum(t.state == s for t in ended) for s in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    }
    told = ", ".join(f"{count} {kind.name.lower()}" for kind, count in counts.items() if count)
    console.print(f"{len(ended)} of {study.target} trials ended ({told or 'none'}); {cost(study)}")
    starts = [trial.datetime_start for trial in ended if trial.datetime_start]
    stops = [trial.datetime_complete for trial in ended if trial.datetime_complete]
    if alive and starts and stops:
        left = remaining(len(ended), missing, (max(stops) - min(starts)).total_seconds())
        if left is not None:
            console.print(f"About {left} left at this pace")
