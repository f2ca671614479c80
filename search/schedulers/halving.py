"""Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), stopping or promoting."""

from __future__ import annotations

import math

import numpy as np

from search.schedulers.base import Decision, Scheduler
from search.sections import rungs_below

_BRACKET = 0xB4AC  # keeps the draws of brackets apart from the sampler's


class Brackets:
    """Rungs at resource r eta^(s+k), for k = 0, 1, ... below the maximum, in bracket s.

    With several brackets a trial's is drawn with Hyperband's shares (Li et al. 2018, arXiv:1603.06560):
    bracket s, which starts s rungs later, gets trials in proportion to eta^(S-s) / (S-s+1), where S+1 is
    the number of brackets. The draw depends on the seed and the trial's number alone.

    Args:
        grace: Resource r of the first rung.
        eta: Reduction factor.
        maximum: Resource at which trials end; no rung lies there. None: there is no last rung.
        count: Number of brackets; None: one per rung, and one without any.
        seed: Seed of the search.
    """

    def __init__(self, grace: float, eta: float, maximum: float | None, count: int | None, seed: int) -> None:
        self.grace, self.eta, self.seed = grace, eta, seed
        self.rungs = None if maximum is None else rungs_below(maximum, grace, eta)
        if count is None:
            assert self.rungs is not None, "hyperband needs a maximum"
            count = self.rungs + 1
        top = count - 1
        shares = np.array([eta ** (top - s) / (top - s + 1) for s in range(count)])
        self._shares = shares / shares.sum()

    def of(self, number: int) -> int:
        """The bracket of a trial."""
        if len(self._shares) == 1:
            return 0
        generator = np.random.default_rng([self.seed, number, _BRACKET])
        return int(generator.choice(len(self._shares), p=self._shares))

    def rung(self, resource: float, bracket: int) -> int | None:
        """The highest rung that `resource` has reached, counted from the first one of bracket 0."""
        if resource < self.grace * (1 - 1e-9):
            return None
        rung = math.floor(math.log(resource / self.grace, self.eta) + 1e-9)
        if self.rungs is not None:
            rung = min(rung, self.rungs - 1)
        return rung if rung >= bracket else None


class _Halving(Scheduler):
    """What both kinds share: each trial's bracket, and the values at each bracket's rungs."""

    def __init__(
        self, grace: float, eta: float, maximum: float | None, *, brackets: int | None = 1, seed: int = 0
    ) -> None:
        self._brackets = Brackets(grace, eta, maximum, brackets, seed)
        self._eta = eta
        self._reached: dict[int, int] = {}
        self.rungs: dict[tuple[int, int], dict[int, float]] = {}
        """(bracket, rung) -> trial -> its value there."""

    def _enter(self, number: int, resource: float, value: float) -> dict[int, float] | None:
        """Enter a trial at the rung it newly reached, if it did; return the rung as it was before."""
        bracket = self._brackets.of(number)
        rung = self._brackets.rung(resource, bracket)
        if rung is None or rung <= self._reached.get(number, -1):
            return None
        # One that jumped over a rung says nothing about it: its value there was never known.
        self._reached[number] = rung
        entries = self.rungs.setdefault((bracket, rung), {})
        before = dict(entries)
        entries[number] = value
        return before


class StoppingASHA(_Halving):
    """At each rung a trial is stopped unless it is among the best 1/eta of those that came before it.

    The cut is the (1 - 1/eta) percentile of the earlier values, as in Ray Tune; the first one passes.
    """

    def report(self, number: int, resource: float, value: float) -> Decision:
        """Stop at a rung, or go on."""
        before = self._enter(number, resource, value)
        if not before:
            return Decision.CONTINUE
        cut = float(np.percentile(list(before.values()), (1 - 1 / self._eta) * 100))
        return Decision.STOP if value < cut else Decision.CONTINUE


class PromotingASHA(_Halving):
    """Every trial pauses at every rung; the best floor(n / eta) of the n that got there go on (algorithm 2).

    Nothing is stopped on the word of few, and a single slot works too. Where all trials have been started
    and no rung has a candidate left, the best of the highest rung goes on until one trial is complete.
    """

    def __init__(
        self, grace: float, eta: float, maximum: float | None, *, brackets: int | None = 1, seed: int = 0
    ) -> None:
        super().__init__(grace, eta, maximum, brackets=brackets, seed=seed)
        self._paused: dict[int, tuple[int, int]] = {}  # trial -> where it waits
        self._promoted: dict[tuple[int, int], set[int]] = {}
        self._complete = False

    def report(self, number: int, resource: float, value: float) -> Decision:
        """Pause at a rung."""
        if self._enter(number, resource, value) is None:
            return Decision.CONTINUE
        self._paused[number] = (self._brackets.of(number), self._reached[number])
        return Decision.PAUSE

    def next_promotion(self) -> int | None:
        """The best candidate of the highest rung that has one."""
        for place in sorted(self.rungs, key=lambda place: place[1], reverse=True):
            best = self._ranked(place)[: int(len(self.rungs[place]) / self._eta + 1e-9)]
            for number in best:
                if number not in self._promoted.get(place, ()) and number in self._paused:
                    return number
        return None

    def last_promotion(self) -> int | None:
        """Until one trial is complete: the best paused one of the highest rung."""
        if self._complete or not self._paused:
            return None
        highest = max(rung for _, rung in self._paused.values())
        places = [place for place in self.rungs if place[1] == highest]
        waiting = [n for place in places for n in self._ranked(place) if self._paused.get(n) == place]
        return max(waiting, key=lambda n: (self.rungs[self._paused[n]][n], -n))

    def promoted(self, number: int) -> None:
        """The trial leaves its rung."""
        self._promoted.setdefault(self._paused.pop(number), set()).add(number)

    def ended(self, number: int, complete: bool) -> None:
        """The trial is no candidate any more."""
        self._complete |= complete
        self._paused.pop(number, None)

    def _ranked(self, place: tuple[int, int]) -> list[int]:
        entries = self.rungs[place]
        return sorted(entries, key=lambda number: (-entries[number], number))
