"""The best of many trials is lucky: the k best are trained again with new seeds, and the best mean wins.

The confirmation is a search of its own, in the folder `confirmed` of the first one: its points are given, no
trial is stopped early. So it is killed, resumed and looked at like any other.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.spec import SPEC_FILE, SearchSpec, stored_spec
from search.study import STUDY_FILE, SearchStudy, look_at, trial_name
from search.winner import best_trial
from trainable.config import TrainConfig

CONFIRM_FOLDER = "confirmed"


@dataclass(frozen=True)
class Confirmed:
    """One configuration, trained again."""

    trial: FrozenTrial
    """The trial of the search."""

    value: float
    """Its first objective there."""

    values: list[float]
    """The first objective of each new seed that has run to its end."""

    wanted: int
    """Seeds it is to be trained with."""

    @property
    def done(self) -> bool:
        """Whether all seeds have run to their end."""
        return len(self.values) == self.wanted

    @property
    def mean(self) -> float:
        """Mean over the new seeds; the search's own value, which was selected for, is left out."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over the new seeds; nan for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan


def chosen(study: SearchStudy) -> list[FrozenTrial]:
    """The `top` best complete trials, no configuration twice."""
    confirm = study.spec.search.confirm
    if confirm is None:
        return []
    sign = study.spec.search.sign
    complete = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    complete.sort(key=lambda trial: (-sign * trial.values[0], trial.number))
    best: list[FrozenTrial] = []
    configs: list[TrainConfig] = []  # several draws can mean one configuration, where a space quantizes
    for trial in complete:
        if len(best) < confirm.top and (config := study.config(trial)) not in configs:
            best.append(trial)
            configs.append(config)
    return best


def confirmation_spec(study: SearchStudy) -> SearchSpec | None:
    """The search that confirms this one; None where nothing is asked for, or nothing is complete.

    Points of an earlier confirmation stay, so that a search that was extended goes on from it.
    """
    points = [point for trial in chosen(study) for point in _points(study, trial)]
    if not points:
        return None
    folder = study.folder / CONFIRM_FOLDER
    known = stored_spec(folder).search.points_to_evaluate if (folder / STUDY_FILE).exists() else []
    points = known + [point for point in points if point not in known]
    values = study.spec.model_dump(mode="json", by_alias=True)
    scheduler = {
        key: values["search"]["scheduler"][key] for key in ("resource", "max_resource", "grace_period")
    }
    values["train"].pop("seed", None)
    values["space"]["seed"] = {"type": "int", "low": 0, "high": 2**31 - 1}
    values["search"] |= {
        "confirm": None,
        "warm_start": None,
        "num_samples": len(points),
        "points_to_evaluate": points,
        "sampler": {"type": "random"},
        "scheduler": {"type": "none", **scheduler},
    }
    return SearchSpec(**values)


def _points(study: SearchStudy, trial: FrozenTrial) -> list[dict[str, Any]]:
    confirm = study.spec.search.confirm
    assert confirm is not None
    seed = study.config(trial).seed
    return [{**trial.params, "seed": seed + shift} for shift in range(1, confirm.seeds + 1)]


def confirmed(study: SearchStudy) -> list[Confirmed]:
    """What the confirmation has found so far, best mean first, unfinished ones last."""
    folder = study.folder / CONFIRM_FOLDER
    if study.spec.search.confirm is None or not (folder / SPEC_FILE).exists():
        return []
    spec = stored_spec(folder)
    again = look_at(folder, spec) if (folder / STUDY_FILE).exists() else None
    values = {
        trial.number: float(trial.values[0])
        for trial in (again.trials() if again else [])
        if trial.state == TrialState.COMPLETE
    }
    found = []
    for trial in chosen(study):
        points = _points(study, trial)
        numbers = [number for number, point in enumerate(spec.search.points_to_evaluate) if point in points]
        seen = [values[number] for number in numbers if number in values]
        found.append(Confirmed(trial, float(trial.values[0]), seen, len(points)))
    sign = study.spec.search.sign
    return sorted(found, key=lambda one: (not one.done, -sign * one.mean if one.values else math.inf))


def winner(study: SearchStudy) -> FrozenTrial | None:
    """The trial with the best confirmed mean, once every chosen one has its seeds; until then `best_trial`.

    One whose seed failed or diverged is not confirmed; with none left, the search's own best stays.
    """
    found = confirmed(study)
    spec_done = found and not unconfirmed(study)
    done = [one for one in found if one.done]
    return done[0].trial if spec_done and done else best_trial(study)


def unconfirmed(study: SearchStudy) -> int:
    """Runs of the confirmation that have not ended; 0 where none is asked for."""
    wanted = confirmation_spec(study)
    if wanted is None:
        return 0
    folder = Path(study.folder / CONFIRM_FOLDER)
    if not (folder / STUDY_FILE).exists():
        return wanted.search.num_samples
    return wanted.search.num_samples - len(look_at(folder, wanted).finished())


def confirmed_lines(study: SearchStudy) -> list[list[str]]:
    """A line per confirmed configuration for tables: trial, seeds, mean, spread, in the search, each seed."""
    return [
        [
            trial_name(one.trial.number),
            f"{len(one.values)}/{one.wanted}",
            f"{one.mean:.4f}",
            f"{one.spread:.4f}",
            f"{one.value:.4f}",
            "  ".join(f"{value:.4f}" for value in one.values),
        ]
        for one in confirmed(study)
    ]
