"""Start or resume a search: one Ray Tune run over whatever the study still lacks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import filelock
from ray import tune
from rich.console import Console

from search.plan import Plan, make_plan
from search.progress import Progress
from search.report import write_results
from search.sampler import StudySearcher
from search.scheduler import build_scheduler
from search.spec import SearchSpec
from search.study import STUDY_FILE, SearchStudy, trial_name
from trainable import atomic, cluster
from trainable.config_file import ConfigError, read_mapping, validate

SPEC_FILE = "spec.yaml"
LOCK_FILE = ".lock"

# What may change when a search is resumed: how long, with what, how patiently; not what is searched.
_FREE: dict[str, Any] = {"search": {"num_samples", "max_failures"}, "resources": True}


def run_search(spec: SearchSpec, folder: Path, console: Console) -> SearchStudy:
    """Run the search in `folder` until it has `num_samples` ended trials; continue one that is there.

    Returns when done or interrupted: compare `len(study.finished())` with `num_samples`.

    Raises:
        ConfigError: another process searches here, the folder holds a different search, or a trial does
            not fit the cluster.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(blocking=False)  # the operating system frees it when the process dies
    except filelock.Timeout:
        raise ConfigError([f"{folder}: another process is searching here"]) from None
    with lock:
        check_same_search(spec, folder)
        atomic.write_text(folder / SPEC_FILE, spec.to_yaml())
        study = SearchStudy(folder, spec)
        done, unfinished = len(study.finished()), len(study.unfinished())
        missing = max(0, spec.search.num_samples - done)
        if done or unfinished:
            console.print(
                f"Resuming {folder}: {done} trials done, {unfinished} go on from their checkpoints."
            )
        if missing:
            cluster.connect(dashboard=spec.resources.workers > 1)
            _tune(spec, study, missing, console)
        write_results(study)
        return study


def check_same_search(spec: SearchSpec, folder: Path) -> None:
    """Refuse to mix two searches in one folder.

    Raises:
        ConfigError: the folder's spec differs in more than number of samples and resources.
    """
    if not (folder / STUDY_FILE).exists():
        return
    stored = stored_spec(folder)
    old, new = (s.model_dump(mode="json", exclude=_FREE) for s in (stored, spec))
    changed = [
        f"{part}.{key}"
        for part in old
        for key in {**old[part], **new[part]}
        if old[part].get(key) != new[part].get(key)
    ]
    if changed:
        raise ConfigError(
            [
                f"{folder} holds a search that differs in {', '.join(sorted(changed))}; "
                "give this one another --name, or --fresh to start over"
            ]
        )


def stored_spec(folder: Path) -> SearchSpec:
    """The spec of the search in `folder`; raises ConfigError where there is none."""
    path = folder / SPEC_FILE
    return validate(SearchSpec, read_mapping(path), str(path))


def _tune(spec: SearchSpec, study: SearchStudy, samples: int, console: Console) -> None:
    """One run of Ray Tune over `samples` trials, unfinished ones first."""
    plan = make_plan(spec.resources, *cluster.capacity())
    console.print(
        f"{samples} trials, {plan.concurrent} at a time, each with {plan.workers.count} worker(s) of "
        f"{plan.workers.cpus} CPU(s) and {plan.workers.gpus:g} GPU(s)"
    )
    progress = Progress(spec, console, len(study.finished()))
    try:
        build_tuner(study, samples, plan, plan.trainable(), [progress]).fit()
    finally:
        progress.close()


def build_tuner(
    study: SearchStudy, samples: int, plan: Plan, trainable: Any, callbacks: list[tune.Callback]
) -> tune.Tuner:
    """The Tuner that runs `samples` more trials of a study, unfinished ones first."""
    # The run's own files say what Ray's loggers would say, and survive a resume: they stay off.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its header; the project has a table of its own
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(study, plan.workers.cpus),
            scheduler=build_scheduler(study),
            num_samples=samples,
            max_concurrent_trials=plan.concurrent,
            reuse_actors=plan.workers.count == 1,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name=study.folder.name,
            storage_path=str(study.folder.parent),
            failure_config=tune.FailureConfig(max_failures=study.spec.search.max_failures),
            callbacks=callbacks,
            verbose=0,
        ),
    )


def _name(trial: Any) -> str:
    return trial_name(trial.config["number"])
