"""Where a trial's weights come from, under population based training: which trial trained them, when, how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search.study import SearchStudy, trial_name


@dataclass(frozen=True)
class Stretch:
    """Epochs in which one trial trained the weights with one setting."""

    number: int
    """The trial."""

    first: int
    """First epoch, from 1."""

    last: int
    """Last epoch."""

    params: dict[str, Any]
    """Parameters of the space in these epochs."""

    def __str__(self) -> str:
        """`epochs 1-3 of trial_0002`."""
        return f"epochs {self.first}-{self.last} of {trial_name(self.number)}"


def stretches(study: SearchStudy, number: int) -> list[Stretch]:
    """The settings of one trial over its epochs; one stretch where it took nothing over."""
    reports, exploits = study.reports(number), study.exploits(number)
    if not reports:
        return []
    ends = [*(event.data["epoch"] for event in exploits), reports[-1].epoch]
    params = [study.trial(number).params, *(event.data["params"] for event in exploits)]
    starts = [0, *ends]
    return [
        Stretch(number, start + 1, end, settings)
        for start, end, settings in zip(starts, ends, params, strict=False)
        if end > start
    ]


def lineage(study: SearchStudy, number: int) -> list[Stretch]:
    """What the last weights of a trial went through, from the first epoch on, in other trials too."""
    found: list[Stretch] = []
    end = None
    while True:
        taken = [event for event in study.exploits(number) if end is None or event.data["epoch"] < end]
        for stretch in reversed(stretches(study, number)):
            start = taken[-1].data["epoch"] if taken else 0
            if stretch.first > start and (end is None or stretch.first <= end):
                last = stretch.last if end is None else min(stretch.last, end)
                found.insert(0, Stretch(number, stretch.first, last, stretch.params))
        if not taken:
            return found
        number, end = taken[-1].data["source"], taken[-1].data["epoch"]
