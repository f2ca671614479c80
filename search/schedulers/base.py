"""What a scheduler is asked and what it may answer; this one lets every trial run to its end."""

from __future__ import annotations

import enum


class Decision(enum.Enum):
    """What becomes of a trial after a report."""

    CONTINUE = enum.auto()
    """It goes on."""

    STOP = enum.auto()
    """It ends here."""

    PAUSE = enum.auto()
    """It gives its slot away, and may be taken up again from its checkpoint."""


class Scheduler:
    """Lets every trial run. Base of the others.

    All schedulers decide from what they were told alone (no clock, no random state): told the same reports
    and promotions in the same order, they take the same decisions. A search that was killed is resumed so.
    Larger values are better; they are finite.
    """

    def report(self, number: int, resource: float, value: float) -> Decision:
        """Trial `number` has spent `resource` and reached `value`; say what becomes of it."""
        return Decision.CONTINUE

    def next_promotion(self) -> int | None:
        """A paused trial that should go on before any new one starts."""
        return None

    def last_promotion(self) -> int | None:
        """No new trial comes and none runs: a paused trial that should go on all the same."""
        return None

    def source(self, number: int) -> int | None:
        """For a trial about to go on: the one whose weights and settings it takes over; None: its own."""
        return None

    def promoted(self, number: int) -> None:
        """The trial goes on."""

    def ended(self, number: int, complete: bool) -> None:
        """The trial will not report again; `complete` if it ran to its end."""
