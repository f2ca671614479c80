"""Start or resume a search: one Ray Tune run over whatever the study still lacks."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune
from rich.console import Console

from search.conductor import Conductor
from search.confirm import CONFIRM_FOLDER, confirmation_spec
from search.executor import Executor
from search.lifeline import Lifeline
from search.place import Place
from search.plan import make_plan
from search.progress import Progress
from search.report import write_results
from search.report.page import write_report
from search.retention import tidy
from search.slots import let_processes_start
from search.spec import SPEC_FILE, SearchSpec, stored_spec
from search.storage import open_place
from search.study import STUDY_FILE, SearchStudy, look_at, trial_name
from search.workers import PLACEMENT_FILE, release
from trainable import atomic, cluster
from trainable.atomic import StorageError
from trainable.config import TrainConfig
from trainable.config.keeping import BOOKKEEPING
from trainable.errors import ConfigError

RAY_FOLDER = "ray"

# What may change when a search is resumed: how long, with what, how patiently; not what is searched.
_FREE: dict[str, Any] = {
    "search": {"num_samples", "max_failures", "trial_timeout", "keep_checkpoints", "confirm"},
    "resources": True,
}


def run_search(spec: SearchSpec, place: Place, console: Console, *, fresh: bool = False) -> SearchStudy:
    """Run the search in `place` until it has `num_samples` ended trials; continue one that is there.

    With `fresh` what is there is deleted first, once no other process can be searching in it.

    Returns when done or interrupted: compare `len(study.finished())` with `study.target`.

    Raises:
        ConfigError: another process searches here, the folder holds a different search, or a trial does
            not fit the cluster.
        ConnectionError: Ray did not start, or died; the same command goes on.
        StorageError: the storage cannot be written; the same command goes on once it can.
    """
    with place.claimed(console.print, fresh=fresh):
        check_same_search(spec, place)
        if not (place.folder / STUDY_FILE).exists():
            earlier_search(spec)  # a wrong name leaves no search behind that the right one would differ from
        atomic.write_text(place.folder / SPEC_FILE, spec.to_yaml())
        place.push()
        study = SearchStudy(place.folder, spec, place=place)
        if not study.trials() and (told := warm_start(study)):
            console.print(told, soft_wrap=True)
        done = len(study.finished())
        conductor = Conductor(study)
        if study.trials():
            console.print(
                f"Resuming {place}: {done} trials done, {conductor.cut_short} go on from their checkpoints."
            )
        if not conductor.finished:
            _connect()
            _run(study, conductor, console)
        tidy(study)
        if conductor.finished:
            _confirm(study, console)
            tidy(study)
        place.fetch()
        write_results(study)
        write_report(study)
        return study


def _confirm(study: SearchStudy, console: Console) -> None:
    """Train the best again with new seeds, where the spec says so: a search in the search's folder."""
    spec = confirmation_spec(study)
    if spec is None:
        return
    place = study.place.child(CONFIRM_FOLDER)
    console.print(f"Confirming the best with new seeds: {spec.search.num_samples} runs")
    # An extended search may have new best trials: their points are appended to those already there.
    atomic.write_text(place.folder / SPEC_FILE, spec.to_yaml())
    place.push()
    run_search(spec, place, console)


def check_same_search(spec: SearchSpec, place: Place) -> None:
    """Refuse to mix two searches in one folder.

    Raises:
        ConfigError: the folder's spec differs in more than number of samples and resources.
    """
    if not (place.folder / STUDY_FILE).exists():
        return
    stored = stored_spec(place.folder)
    old, new = (_deciding(s) for s in (stored, spec))
    changed = [
        f"{part}.{key}"
        for part in old
        for key in {**old[part], **new[part]}
        if old[part].get(key) != new[part].get(key)
    ]
    if changed:
        raise ConfigError(
            [
                f"{place} holds a search that differs in {', '.join(sorted(changed))}; "
                "give this one another --name, or --fresh to start over"
            ]
        )


def _deciding(spec: SearchSpec) -> dict[str, dict[str, Any]]:
    """What decides over a search's results, defaults of `train` written out; not how trials are logged."""
    deciding: dict[str, dict[str, Any]] = spec.model_dump(mode="json", exclude=_FREE)
    usual = {key: field.default for key, field in TrainConfig.model_fields.items() if key not in spec.space}
    train = {**usual, **deciding["train"]}
    deciding["train"] = {key: value for key, value in train.items() if key not in BOOKKEEPING}
    return deciding


def warm_start(study: SearchStudy) -> str:
    """Read the earlier search that `warm_start` names into a study without trials of its own.

    Returns:
        One line on what was taken over; nothing where none is named.

    Raises:
        ConfigError: there is no search, or it has another objective.
    """
    earlier = earlier_search(study.spec)
    if earlier is None:
        return ""
    place, spec = earlier
    told = study.add_warm_start(place.folder.name, look_at(place.folder, spec, place).finished())
    return f"Warm start from {place}: {told}"


def earlier_search(spec: SearchSpec) -> tuple[Place, SearchSpec] | None:
    """The search that `warm_start` names and what was searched there; None where none is named.

    Raises:
        ConfigError: there is no search, or it has another objective.
    """
    address = spec.search.warm_start
    if address is None:
        return None
    storage, _, name = address.rstrip("/").rpartition("/")
    place = open_place(storage or "/", name)
    if not place.exists():
        raise ConfigError([f"search.warm_start: {place}: no search here"])
    place.read()
    earlier = stored_spec(place.folder)
    theirs, ours = earlier.search, spec.search
    if (theirs.metrics, theirs.directions) != (ours.metrics, ours.directions):
        raise ConfigError(
            [f"search.warm_start: {place} has the objective {theirs.metric}, this search {ours.metric}"]
        )
    return place, earlier


def _connect() -> None:
    """Join or start Ray; on a machine under load its processes may miss their time limit: once more then.

    Raises:
        ConnectionError: it did not start.
    """
    for last in (False, True):
        try:
            cluster.connect(dashboard=False)
            return
        except Exception as error:
            ray.shutdown()
            if last:
                raise ConnectionError(f"Ray did not start: {error}") from error


def _run(study: SearchStudy, conductor: Conductor, console: Console) -> None:
    """One run of Ray Tune over whatever the study still lacks."""
    spec = study.spec
    plan = make_plan(spec.resources, *cluster.capacity())
    console.print(
        f"{study.target - len(study.finished())} trials, {plan.concurrent} at a time, each with "
        f"{plan.workers.count} worker(s) of {plan.workers.cpus} CPU(s) and {plan.workers.gpus:g} GPU(s)"
    )
    executor = Executor(conductor, plan.concurrent, plan.workers.cpus)
    if plan.workers.count > 1:
        executor.release = lambda folder: _release(study, folder)
    cpus, gpus = plan.workers.count * plan.workers.cpus, plan.workers.count * plan.workers.gpus
    study.note_resources(cpus, gpus)
    progress = Progress(study, console, cpus=cpus, gpus=gpus)
    try:
        with stop_on_signals(executor):
            build_tuner(executor, plan.trainable(), reuse=plan.workers.count == 1, callbacks=[progress]).fit()
    finally:
        progress.close()


def _release(study: SearchStudy, folder: Path) -> None:
    with contextlib.suppress(StorageError):
        study.place.fetch_file(f"{folder.name}/{PLACEMENT_FILE}")
    release(folder)


def build_tuner(
    executor: Executor, trainable: Any, *, reuse: bool, callbacks: list[tune.Callback]
) -> tune.Tuner:
    """The Tuner that runs what the executor's conductor hands out.

    Args:
        executor: Whose trials.
        trainable: What runs one.
        reuse: Run one trial after the other in the same processes.
        callbacks: More callbacks of Tune.
    """
    # What Tune would log and save, the project does itself, and it survives a kill: all that stays off.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its header; the project has a table of its own
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = (
        "1"  # a report without the metric must not end a search
    )
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # see stop_on_signals
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = str(10**9)
    # All slots' processes start side by side; by default each waits for the one before.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(executor.concurrent)
    let_processes_start()
    os.environ["TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S"] = "0"
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)  # misses its loggers
    logging.getLogger("ray.tune.tune").setLevel(
        logging.CRITICAL
    )  # calls a trial that is tried again an error
    searcher, scheduler, watchdog = executor.parts()
    folder = executor.conductor.study.folder
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # the searcher says when it is over
            reuse_actors=reuse,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name=RAY_FOLDER,
            storage_path=str(folder),
            stop=_Interrupted(executor),
            callbacks=[*callbacks, watchdog, Lifeline()],
            verbose=0,
        ),
    )


class _Interrupted(tune.Stopper):
    """Stops everything once the search was asked to stop."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._executor.stopping

    def __getstate__(self) -> dict[str, Any]:
        return {}


@contextlib.contextmanager
def stop_on_signals(executor: Executor) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGUSR1 (time limits) stop the search in order, a second one at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        if executor.stopping:
            os._exit(130)
        executor.stopping = True

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _name(trial: Any) -> str:
    return trial_name(trial.config["number"])
