"""The search's budget of checkpoints: the best ended trials keep theirs, and all that may go on."""

from __future__ import annotations

import math

from optuna.trial import FrozenTrial, TrialState

from search.confirm import chosen, unconfirmed, winner
from search.study import SearchStudy, trial_name
from search.winner import pareto_front

_LARGE = ("checkpoints", "model.weights", "model.weights.json")


def tidy(study: SearchStudy, number: int | None = None) -> None:
    """Delete checkpoints and weights of ended trials beyond the best `keep_checkpoints`.

    Numbers stay: rows, settings, TensorBoard files. Running and paused trials are not touched, nor is the
    winner, nor what a confirmation may make the winner, nor the Pareto front of several objectives. Under
    `pbt`, where any trial may be copied by another, nothing is deleted while trials run.

    Args:
        study: The search.
        number: The trial that has just ended: only it and those it pushes out are looked at.
    """
    if study.spec.search.scheduler.type == "pbt" and study.unfinished():
        return
    first = _first(study)
    kept = max(study.spec.search.keep_checkpoints, len(first))
    places = {trial.number: place for place, trial in enumerate(first)}
    ranked = sorted(_ranked(study), key=lambda trial: places.get(trial.number, kept))  # otherwise as it was
    beyond = ranked[kept:]
    if number is not None:
        changed = {number, *(trial.number for trial in [*beyond[:1], *pareto_front(study, without=number)])}
        beyond = [trial for trial in beyond if trial.number in changed]
    study.place.delete(f"{trial_name(trial.number)}/{name}" for trial in beyond for name in _LARGE)


def _first(study: SearchStudy) -> list[FrozenTrial]:
    """Trials that keep their weights whatever their rank: the winner, or who may become it; the front."""
    best = winner(study)
    first = chosen(study) if unconfirmed(study) else [best] if best else []
    numbers = {trial.number for trial in first}
    return first + [trial for trial in pareto_front(study) if trial.number not in numbers]


def _ranked(study: SearchStudy) -> list[FrozenTrial]:
    """Ended trials: complete ones by value, then those stopped early by how far they came."""
    sign = study.spec.search.sign
    order = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1, TrialState.FAIL: 2}

    def place(trial: FrozenTrial) -> tuple[float, ...]:
        spent = 0.0 if trial.state == TrialState.COMPLETE else -study.spent(trial)
        last = study.last_report(trial.number)
        value = last.values[0] if last else math.nan
        finite = value == value
        return order[trial.state], spent, not finite, -sign * value if finite else 0.0, trial.number

    return sorted(study.finished(), key=place)
