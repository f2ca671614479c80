"""Median stopping (Golovin et al. 2017, "Google Vizier", section 3.2.2)."""

from __future__ import annotations

import bisect
import statistics

from search.schedulers.base import Decision, Scheduler


class MedianStopping(Scheduler):
    """Stops a trial whose best value so far is below the median of the others' running means.

    The mean of another trial is taken over its reports up to the resource in question; only trials that
    got that far count, because shorter ones say nothing about it.

    Args:
        grace: Resource every trial may spend first.
        min_trials: Others that must have come as far before anything is stopped.
    """

    def __init__(self, grace: float, min_trials: int) -> None:
        self._grace, self._min_trials = grace, min_trials
        self._resources: dict[int, list[float]] = {}
        self._means: dict[int, list[float]] = {}
        self._best: dict[int, float] = {}

    def report(self, number: int, resource: float, value: float) -> Decision:
        """Stop below the median."""
        resources, means = self._resources.setdefault(number, []), self._means.setdefault(number, [])
        resources.append(resource)
        means.append(((means[-1] * len(means) if means else 0.0) + value) / len(resources))
        self._best[number] = max(value, self._best.get(number, value))
        if resource < self._grace:
            return Decision.CONTINUE
        others = [
            self._means[other][bisect.bisect_right(spent, resource) - 1]
            for other, spent in self._resources.items()
            if other != number and spent[-1] >= resource and spent[0] <= resource
        ]
        if len(others) < self._min_trials:
            return Decision.CONTINUE
        return Decision.STOP if self._best[number] < statistics.median(others) else Decision.CONTINUE
