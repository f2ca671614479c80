"""Which trials a search has won with: the best in the first objective, and the Pareto front of several."""

from __future__ import annotations

import math

from optuna.trial import FrozenTrial, TrialState

from search.schedulers.halving import Brackets
from search.study import SearchStudy

_ALIKE = 0.9
"""Share of the most seconds or images spent from which on a trial's last value is compared."""


def best_trial(study: SearchStudy) -> FrozenTrial | None:
    """The winner in the first objective: best final value among trials that ran to their end.

    Where none has, the best among those that spent most, because values at different resources don't
    compare; None before the first report. Trials that failed, diverged or don't fit never win.
    """
    sign = study.spec.search.sign
    complete = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    if complete:
        return max(complete, key=lambda trial: (sign * float(trial.values[0]), -trial.number))
    candidates = [
        trial
        for trial in study.trials()
        if study.reports(trial.number) and trial.state != TrialState.FAIL and not trial.constraints
    ]
    if not candidates:
        return None
    level, at_level = _level(study, max(study.spent(trial) for trial in candidates))
    values = {
        trial.number: next((r.values[0] for r in reports if r.resource >= level), reports[-1].values[0])
        for trial in candidates
        if (reports := study.reports(trial.number) if at_level else study.reports(trial.number)[-1:])
        and reports[-1].resource >= level
    }
    return study.trial(max(values, key=lambda number: (sign * values[number], -number)))


def pareto_front(study: SearchStudy, without: int | None = None) -> list[FrozenTrial]:
    """Complete trials that no other beats in all objectives at once, best in the first one first.

    Empty where there is one objective: `best_trial` is its answer. `without` leaves out a trial, as if it
    had never been.
    """
    if len(study.spec.search.metrics) == 1:
        return []
    signs = [1 if mode == "max" else -1 for mode in study.spec.search.directions]
    points = {
        trial.number: tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))
        for trial in study.trials()
        if trial.state == TrialState.COMPLETE
        and trial.number != without
        and all(map(math.isfinite, trial.values))
    }
    front: list[int] = []
    # Whatever beats a point comes before it in this order, and so does the undominated one behind that.
    for number in sorted(points, key=lambda n: points[n], reverse=True):
        point = points[number]
        if not any(
            points[other] != point and all(o >= p for o, p in zip(points[other], point, strict=True))
            for other in front
        ):
            front.append(number)
    return [study.trial(number) for number in front]


def _level(study: SearchStudy, furthest: float) -> tuple[float, bool]:
    """Resource that a trial must have spent to be compared, and whether its value there counts.

    Epochs are whole numbers, on which trials agree. Seconds and images times time steps are not: there
    trials are compared at the highest rung that one has reached, or without rungs, a little below.
    """
    scheduler = study.spec.search.scheduler
    if scheduler.resource == "epoch":
        return furthest, False
    if scheduler.type in ("asha", "hyperband"):
        grace, eta = scheduler.grace_period, scheduler.reduction_factor
        rung = Brackets(grace, eta, study.spec.maximum, 1, 0).rung(furthest, 0)
        if rung is not None:
            return grace * eta**rung * (1 - 1e-9), True
    return _ALIKE * furthest, False
