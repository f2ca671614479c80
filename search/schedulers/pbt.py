"""Population based training (Jaderberg et al. 2017, arXiv:1711.09846), in rounds."""

from __future__ import annotations

import math

import numpy as np

from search.schedulers.base import Decision, Scheduler

_SOURCE = 0x9B7  # keeps these draws apart from the sampler's and the brackets'


class PopulationBasedTraining(Scheduler):
    """After every `interval` the worst members take over weights and settings of the best, and change some.

    Rounds are synchronous (Ray Tune's `synch=True`): every member pauses at the end of a round, and goes on
    when all have come as far or ended. So members are compared at equal resource only, fewer slots than
    members are enough, and which member copies which depends on the values alone, not on timing.

    Args:
        interval: Resource between two rounds.
        population: Number of members.
        quantile: Share of the members that copy, and of those that are copied; at most a half.
        seed: Seed of the search.
    """

    def __init__(self, interval: float, population: int, quantile: float, seed: int) -> None:
        self._interval, self._population, self._quantile, self._seed = interval, population, quantile, seed
        self._reached: dict[int, int] = {}
        self._paused: dict[int, int] = {}
        self._ended: set[int] = set()
        self.rounds: dict[int, dict[int, float]] = {}
        """Round -> member -> its value there."""

    def report(self, number: int, resource: float, value: float) -> Decision:
        """Pause at the end of a round."""
        last = math.floor(resource / self._interval + 1e-9)
        if last <= self._reached.get(number, 0):
            return Decision.CONTINUE
        self._reached[number] = self._paused[number] = last
        self.rounds.setdefault(last, {})[number] = value
        return Decision.PAUSE

    def next_promotion(self) -> int | None:
        """The first paused member whose round is complete."""
        for number in sorted(self._paused, key=lambda n: (self._paused[n], n)):
            there = {n for n, last in self._reached.items() if last >= self._paused[number]}
            if len(there | self._ended) >= self._population:
                return number
        return None

    def source(self, number: int) -> int | None:
        """For a member among the worst of its round: one of the best, drawn from seed, member and round."""
        entries = self.rounds[self._paused[number]]
        alive = [n for n in entries if n not in self._ended]
        ranked = sorted(alive, key=lambda n: (-entries[n], n))
        share = min(math.ceil(len(ranked) * self._quantile), len(ranked) // 2)
        if share == 0 or number not in ranked[-share:]:
            return None
        generator = np.random.default_rng([self._seed, number, self._paused[number], _SOURCE])
        return int(generator.choice(ranked[:share]))

    def promoted(self, number: int) -> None:
        """The member goes on."""
        self._paused.pop(number)

    def ended(self, number: int, complete: bool) -> None:
        """The member is copied no more, and nobody waits for it."""
        self._ended.add(number)
        self._paused.pop(number, None)
