"""The search's memory: an Optuna study over an append-only journal, from which everything is rebuilt."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from search.conditions import draw
from search.journal import JOURNAL_FILE
from search.place import Place
from search.sampler import build_sampler
from search.spec import SearchSpec
from search.warm import take_over, usable
from trainable.config import TrainConfig
from trainable.config_file import problems_of
from trainable.errors import ConfigError
from trainable.metrics import EPOCH

STUDY_FILE = JOURNAL_FILE
_CAUSE, _LOG, _WARM, _RESOURCES = "cause", "log", "warm_start", "resources_per_trial"
_EVENT = "event:"
_FIXED = "fixed_params"  # what Optuna's enqueue_trial writes

_CONSTRAINT = (
    "constraints:usable"  # what Optuna's Trial.set_constraint("usable", ...) writes; above 0 is broken
)


def trial_name(number: int) -> str:
    """Name of a trial, and of its folder below the search's."""
    return f"trial_{number:04d}"


@dataclass(frozen=True)
class Report:
    """What a trial reported once: its objectives, and what it had spent by then."""

    epoch: int
    resource: float
    values: tuple[float, ...]
    """One per metric of the search, in their order."""


@dataclass(frozen=True)
class Event:
    """One line of a search's history, beyond what Optuna itself keeps."""

    number: int
    """The trial's number."""

    kind: str
    """`start` (all parameters drawn), `report`, `promote`, `exploit` (it goes on with another's weights and
    with new settings), `failure`."""

    data: dict[str, Any]


class SearchStudy:
    """An Optuna study whose every step is in `journal.log` before the next one starts.

    The study is what a killed search continues from: trials that ended keep their state, trials that
    were running are RUNNING still. Beside Optuna's own fields each trial keeps its events, numbered over
    the whole search, so that a scheduler can be led through them in their order. Ray Tune's own experiment
    state, written every ten seconds at best, is not needed.

    Args:
        folder: The search's folder; the journal is made in it on first use.
        spec: What is searched.
        storage: Another Optuna storage, e.g. one in memory for a simulation.
        place: Where the search lies, if `folder` is but a copy.
    """

    def __init__(
        self,
        folder: Path,
        spec: SearchSpec,
        storage: BaseStorage | None = None,
        place: Place | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder
        self.spec = spec
        self._place = place
        self.storage = storage or self.place.journal()
        search = spec.search
        names = {study.study_name for study in self.storage.get_all_studies()}
        if folder.name in names:
            self.study = optuna.load_study(study_name=folder.name, storage=self.storage)
        else:
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=folder.name,
                directions=["maximize" if mode == "max" else "minimize" for mode in search.directions],
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.set_metric_names(search.metrics)  # what the dashboard shows
        self.study.sampler = build_sampler(spec, 0)
        self._reports: dict[int, list[Report]] = {}
        self._exploits: dict[int, list[Event]] = {}
        self._events: list[Event] = []
        self._started: set[int] = set()
        self._next = 0
        self._read_events()

    @property
    def place(self) -> Place:
        """Where the search lies."""
        return self._place or Place(self.folder)

    def _read_events(self) -> None:
        found = [
            (key, trial.number, value)
            for trial in self._all()
            for key, value in trial.system_attrs.items()
            if key.startswith(_EVENT)
        ]
        for key, number, data in sorted(found, key=itemgetter(0)):
            try:
                self._remember(Event(number, data["kind"], {k: v for k, v in data.items() if k != "kind"}))
                self._next = int(key.removeprefix(_EVENT)) + 1
            except (ValueError, TypeError, LookupError):
                where = f"{self.folder / JOURNAL_FILE}: {trial_name(number)}"
                told = f"{where}: {key} {data!r} is no event of a search: give --fresh"
                raise ConfigError([told]) from None

    def _remember(self, event: Event) -> None:
        self._events.append(event)
        if event.kind == "start":
            self._started.add(event.number)
        elif event.kind == "report":
            values = tuple(float(value) for value in event.data["values"])
            report = Report(int(event.data["epoch"]), float(event.data["resource"]), values)
            self._reports.setdefault(event.number, []).append(report)
        elif event.kind == "exploit":
            self._exploits.setdefault(event.number, []).append(event)

    def _all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    @property
    def target(self) -> int:
        """Trials this search is to have."""
        return self.spec.target

    @property
    def resources(self) -> tuple[int, float]:
        """CPUs and GPUs of a trial, over its workers: those last run with, before that what the spec says."""
        spec = self.spec.resources
        noted = self.study.user_attrs.get(_RESOURCES, {})
        cpus = noted.get("cpus", spec.workers * (spec.cpus_per_worker or 1))
        return cpus, noted.get("gpus", spec.workers * (spec.gpus_per_worker or 0.0))

    def note_resources(self, cpus: int, gpus: float) -> None:
        """Keep what a trial runs with, which the spec may leave to the machine."""
        if self.study.user_attrs.get(_RESOURCES) != (noted := {"cpus": cpus, "gpus": gpus}):
            self.study.set_user_attr(_RESOURCES, noted)

    def trials(self) -> list[FrozenTrial]:
        """This search's trials by number; those of a warm start, or of another hand, are left out."""
        return [trial for trial in self._all() if self._is_own(trial)]

    def _is_own(self, trial: FrozenTrial) -> bool:
        """Whether this search ran the trial, or began to: not one that Optuna's add_trial put there, from
        which the sampler learns all the same, nor one that still waits in Optuna's queue."""
        if _WARM in trial.user_attrs or trial.state == TrialState.WAITING:
            return False
        return not trial.state.is_finished() or trial.number in self._started

    def trial(self, number: int) -> FrozenTrial:
        """The trial as it stands now."""
        return self._all()[number]

    def finished(self) -> list[FrozenTrial]:
        """Trials that ended: complete, pruned or failed."""
        return [trial for trial in self.trials() if trial.state.is_finished()]

    def unfinished(self) -> list[FrozenTrial]:
        """Trials that have not ended: running, paused, or cut short when the last process died."""
        return [trial for trial in self.trials() if not trial.state.is_finished()]

    def events(self) -> list[Event]:
        """All events in the order in which they happened."""
        return list(self._events)

    def reports(self, number: int) -> list[Report]:
        """What a trial reported, by epoch."""
        return list(self._reports.get(number, []))

    def last_report(self, number: int) -> Report | None:
        """What a trial reported last; None before the first."""
        reports = self._reports.get(number)
        return reports[-1] if reports else None

    def failures(self, number: int) -> list[str]:
        """Why a trial crashed, once for each crash."""
        return [e.data["cause"] for e in self._events if e.number == number and e.kind == "failure"]

    def config(self, trial: FrozenTrial) -> TrainConfig:
        """The configuration of a trial, as it stands now; raises ConfigError where it is not valid."""
        params = self.params(trial)
        try:
            return self.spec.config(params)
        except ValidationError as error:
            lines = [f"{key}: {message}" if key else message for key, message in problems_of(error, params)]
            raise ConfigError([f"invalid configuration: {line}" for line in lines]) from None

    def params(self, trial: FrozenTrial) -> dict[str, Any]:
        """The parameters of a trial: those it drew, or under `pbt` those it took over last."""
        exploits = self._exploits.get(trial.number)
        return dict(exploits[-1].data["params"] if exploits else trial.params)

    def exploits(self, number: int) -> list[Event]:
        """When a trial took over another's weights, in order: `source`, `epoch` and the new `params`."""
        return list(self._exploits.get(number, []))

    def note(self, number: int, kind: str, **data: Any) -> None:
        """Append an event; it is on disk when this returns."""
        key = f"{_EVENT}{self._next:08d}"
        self.storage.set_trial_system_attr(self._id(number), key, {"kind": kind, **data})
        self._next += 1
        self._remember(Event(number, kind, data))

    def _id(self, number: int) -> int:
        return int(self.trial(number)._trial_id)

    def ask(self) -> FrozenTrial:
        """The next trial, its parameters drawn by the sampler of its number.

        Trials of Optuna's queue (`enqueue_trial`) come first; what of their parameters this space cannot
        draw is drawn from it.
        """
        number = len(self._all())
        for waiting in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))[:1]:
            number, fixed = waiting.number, waiting.system_attrs.get(_FIXED, {})
            kept = take_over(self.spec, fixed).params
            if dropped := {name: value for name, value in fixed.items() if name not in kept}:
                warnings.warn(
                    f"{trial_name(number)} was enqueued with {dropped}, which this space cannot draw",
                    stacklevel=2,
                )
            self.storage.set_trial_system_attr(waiting._trial_id, _FIXED, kept)
        self.study.sampler = build_sampler(self.spec, number - len(self._warm()))
        return self._draw(self.study.ask())

    def reopen(self, number: int) -> FrozenTrial:
        """Take up an unfinished trial; parameters that a kill left undrawn are drawn now."""
        if number in self._started:
            return self.trial(number)
        self.study.sampler = build_sampler(self.spec, number - len(self._warm()))
        return self._draw(optuna.Trial(self.study, self._id(number)))

    def _draw(self, trial: optuna.Trial) -> FrozenTrial:
        draw(self.spec.space, self.spec.train, trial)
        self.note(trial.number, "start")
        return self.trial(trial.number)

    def _warm(self) -> list[FrozenTrial]:
        return [trial for trial in self._all() if _WARM in trial.user_attrs]

    def record(self, number: int, row: dict[str, Any], resource: float) -> None:
        """Keep the objectives of one report, nan where it has none, and what the trial had spent by then."""
        given = [row.get(metric) for metric in self.spec.search.metrics]
        values = [math.nan if value is None else float(value) for value in given]
        self.note(number, "report", epoch=int(row[EPOCH]), resource=resource, values=values)
        if len(values) == 1:  # Optuna keeps curves of one objective: for its samplers and its dashboard
            self.storage.set_trial_intermediate_value(self._id(number), int(row[EPOCH]), values[0])

    def end(
        self,
        number: int,
        state: TrialState,
        values: tuple[float, ...] | None = None,
        *,
        cause: str = "",
        log: str = "",
        infeasible: bool = False,
    ) -> None:
        """Tell Optuna how a trial ended; the last thing that is ever said of it.

        Args:
            number: The trial.
            state: COMPLETE only where it ran to its end; stopped early is PRUNED, so that a two-epoch
                value is never taken for a fifty-epoch one; crashed is FAIL.
            values: The objectives of a COMPLETE trial.
            cause: Why it failed.
            log: The last lines it wrote.
            infeasible: Tell the sampler that such settings break a constraint.
        """
        frozen, identity = self.trial(number), self._id(number)
        known = dict(frozen.intermediate_values)
        if len(self.spec.search.metrics) == 1:
            for report in self.reports(number):  # one may be missing where a kill fell between two lines
                if report.epoch not in known:
                    self.storage.set_trial_intermediate_value(identity, report.epoch, report.values[0])
        for key, text in ((_CAUSE, cause), (_LOG, log)):
            if text:
                self.storage.set_trial_user_attr(identity, key, text)
        if infeasible:
            self.storage.set_trial_system_attr(identity, _CONSTRAINT, 1.0)
        self.study.tell(number, None if values is None else list(values), state=state)

    def add_warm_start(self, name: str, trials: list[FrozenTrial]) -> str:
        """Let the sampler learn from another search's ended trials; before the first trial of this one.

        Returns:
            One line on how much of them this search's space has a place for.
        """
        there = {trial.user_attrs[_WARM] for trial in self._warm()}
        kept, told = usable(self.spec, trials)
        for trial, taken in kept:
            label = f"{name}/{trial_name(trial.number)}"
            if label in there:  # a kill came half-way
                continue
            self.study.add_trial(
                optuna.trial.create_trial(
                    state=trial.state,
                    values=trial.values if trial.state == TrialState.COMPLETE else None,
                    params=taken.params,
                    distributions=taken.distributions,
                    intermediate_values=trial.intermediate_values,
                    user_attrs={**trial.user_attrs, _WARM: label},
                    constraints=trial.constraints or None,
                )
            )
        return told

    def spent(self, trial: FrozenTrial) -> float:
        """Resource a trial had spent at its last report, in the scheduler's unit; 0 before the first."""
        reports = self.reports(trial.number)
        return reports[-1].resource if reports else 0.0

    def how_far(self, number: int) -> str:
        """How far a trial has come, in words: epochs, and what the scheduler counts in if not those."""
        last, unit = self.last_report(number), self.spec.search.scheduler.resource
        assert last is not None
        spent = f"{last.resource:,.1f} {unit}" if unit == "seconds" else f"{last.resource:,.0f} {unit}"
        return f"{last.epoch} epochs" + (f" ({spent})" if unit != "epoch" else "")


def look_at(folder: Path, spec: SearchSpec, place: Place | None = None) -> SearchStudy:
    """A search to look at: nothing is written, not even into a journal in which nothing stands yet."""
    storage = (place or Place(folder)).journal()
    begun = folder.name in {study.study_name for study in storage.get_all_studies()}
    return SearchStudy(folder, spec, storage if begun else InMemoryStorage(), place)


def cause(trial: FrozenTrial) -> str:
    """Why a trial failed, diverged or does not fit; empty for others."""
    return str(trial.user_attrs.get(_CAUSE, ""))
