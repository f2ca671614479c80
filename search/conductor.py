"""Decides what runs next and what becomes of it. Knows the study, the sampler and the scheduler; not Ray.

A search in Ray Tune and a simulation of one go through this same code. Whatever it decides is in the study's
journal before it takes effect, and after a kill it is rebuilt from there: reports are led through a new
scheduler in their order, promotions are taken from the record.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from search.explore import explore
from search.schedulers import Decision, build_scheduler
from search.study import SearchStudy
from trainable.errors import ConfigError
from trainable.inprocess import INFEASIBLE
from trainable.metrics import DIVERGED, EPOCH, FINISHED


class Conductor:
    """One search, from its first trial to its last.

    Args:
        study: The search's memory; whatever it holds already is taken up.
    """

    def __init__(self, study: SearchStudy) -> None:
        self.study = study
        self.scheduler = build_scheduler(study.spec)
        self._sign = study.spec.search.sign
        self._running: set[int] = set()
        self._paused: set[int] = set()
        self._waiting: deque[int] = deque()
        self._take_up()

    def _take_up(self) -> None:
        """Lead the scheduler through what happened, and finish what a kill cut off half-way."""
        last: dict[int, Decision] = {}
        ended = {trial.number: trial for trial in self.study.finished()}
        for event in self.study.events():
            if event.kind == "report" and math.isfinite(event.data["values"][0]):
                value = self._sign * event.data["values"][0]
                last[event.number] = self.scheduler.report(event.number, event.data["resource"], value)
            elif event.kind in ("promote", "exploit"):
                self.scheduler.promoted(event.number)
                last[event.number] = Decision.CONTINUE
        for number, trial in ended.items():
            self.scheduler.ended(number, trial.state == TrialState.COMPLETE)
        for trial in self.study.unfinished():
            decision = last.get(trial.number, Decision.CONTINUE)
            if decision is Decision.STOP:
                self._end(trial.number, TrialState.PRUNED)
            elif decision is Decision.PAUSE:
                self._paused.add(trial.number)
            else:
                self._waiting.append(trial.number)

    @property
    def cut_short(self) -> int:
        """Trials that wait to be taken up again."""
        return len(self._waiting)

    @property
    def paused(self) -> int:
        """Trials that the scheduler has put aside."""
        return len(self._paused)

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing is left to run."""
        return not (self._running or self._waiting or self._paused) and not self._room()

    def _room(self) -> bool:
        return len(self.study.trials()) < self.study.target

    def next(self) -> FrozenTrial | None:
        """The trial to run next, or None: nothing before a running one has reported, or nothing at all.

        A trial whose parameters make no valid configuration ends here, with that as its cause.
        """
        while (trial := self._next()) is not None:
            try:
                self.study.config(trial)
                return trial
            except ConfigError as error:
                self._end(trial.number, TrialState.PRUNED, cause="; ".join(error.problems), infeasible=True)
        return None

    def _next(self) -> FrozenTrial | None:
        if self._waiting:
            trial = self.study.reopen(self._waiting.popleft())
        elif (number := self.scheduler.next_promotion()) is not None:
            trial = self._promote(number)
        elif self._room():
            trial = self.study.ask()
        elif self._running:
            return None
        elif (number := self.scheduler.last_promotion()) is not None:
            trial = self._promote(number)
        else:
            for number in sorted(self._paused):
                self._end(number, TrialState.PRUNED)
            return None
        self._running.add(trial.number)
        return trial

    def _promote(self, number: int) -> FrozenTrial:
        source = self.scheduler.source(number)
        if source is None:
            self.study.note(number, "promote")
        else:
            epoch = self.study.reports(number)[-1].epoch
            taken = self.study.params(self.study.trial(source))
            params = explore(self.study.spec, taken, number, epoch)
            try:
                self.study.spec.config(params)
            except ValidationError:
                params = taken  # a trial that came so far does not end of a change
            self.study.note(number, "exploit", source=source, epoch=epoch, params=params)
        self.scheduler.promoted(number)
        self._paused.discard(number)
        return self.study.trial(number)

    def report(self, number: int, row: dict[str, Any]) -> Decision:
        """A trial has reported; keep it, and say what becomes of the trial.

        A trial that ended by itself is told CONTINUE, so that it can leave in order.
        """
        if self.study.trial(number).state.is_finished():
            return Decision.CONTINUE  # Ray repeats the last report when a trial returns
        if INFEASIBLE in row:
            self._end(number, TrialState.PRUNED, cause=str(row[INFEASIBLE]), infeasible=True)
            return Decision.CONTINUE
        metrics = self.study.spec.search.metrics
        if EPOCH not in row or row.get(metrics[0]) is None:
            if DIVERGED in row:
                self._diverged(number, str(row[DIVERGED]))
            return Decision.CONTINUE  # otherwise it says nothing that could be judged
        # Further objectives may come with the last report only; schedulers read the first.
        values = tuple(math.nan if row.get(m) is None else float(row[m]) for m in metrics)
        known = self.study.reports(number)
        new = not known or int(row[EPOCH]) > known[-1].epoch
        if new:  # an epoch repeated after a resume changes nothing
            self.study.record(number, row, self._resource(number, row))
        needed = values if FINISHED in row else values[:1]
        if DIVERGED in row or not all(map(math.isfinite, needed)):
            self._diverged(number, str(row.get(DIVERGED, "not_finite")))
            return Decision.CONTINUE
        resource = self.study.reports(number)[-1].resource
        decision = Decision.CONTINUE
        if new:
            decision = self.scheduler.report(number, resource, self._sign * values[0])
        maximum = self.study.spec.search.scheduler.max_resource
        if FINISHED in row or (maximum is not None and resource >= maximum):
            self._end(number, TrialState.COMPLETE, values)
            return Decision.CONTINUE if FINISHED in row else Decision.STOP
        if decision is Decision.STOP:
            self._end(number, TrialState.PRUNED)
        elif decision is Decision.PAUSE:
            self._running.discard(number)
            self._paused.add(number)
        return decision

    def _resource(self, number: int, row: dict[str, Any]) -> float:
        """What the trial has spent so far, in the scheduler's unit."""
        unit = self.study.spec.search.scheduler.resource
        if unit == "seconds":
            known = self.study.reports(number)
            return (known[-1].resource if known else 0.0) + float(row["seconds"])
        if unit == "images":
            return float(row["image_steps"]) / self.study.config(self.study.trial(number)).time_steps
        return float(row[unit])

    def _diverged(self, number: int, cause: str) -> None:
        """`fail`: the sampler leaves the trial out; `worst`: such settings count as a broken constraint.

        PRUNED alone would not do: samplers rank a pruned trial by how far it came, and a trial that diverged
        late would pass for a good one.
        """
        if self.study.spec.search.diverged == "worst":
            self._end(number, TrialState.PRUNED, cause=cause, infeasible=True)
        else:
            self._end(number, TrialState.FAIL, cause=cause)

    def crashed(self, number: int, cause: str, log: str = "") -> bool:
        """A trial's process failed: it is tried again, `max_failures` times. Returns whether it will be."""
        if number not in self._running:
            return False  # ended, or paused: what its process did afterwards is no matter
        self.study.note(number, "failure", cause=cause)
        if len(self.study.failures(number)) <= self.study.spec.search.max_failures:
            self.interrupted(number)
            return True
        self._end(number, TrialState.FAIL, cause=cause, log=log)
        return False

    def interrupted(self, number: int) -> None:
        """A trial lost its process through no fault of its own: it waits to be taken up again."""
        if number in self._running:
            self._running.discard(number)
            self._waiting.append(number)

    def _end(
        self, number: int, state: TrialState, values: tuple[float, ...] | None = None, **why: Any
    ) -> None:
        self.study.end(number, state, values, **why)
        self.scheduler.ended(number, state == TrialState.COMPLETE)
        self._running.discard(number)
        self._paused.discard(number)
