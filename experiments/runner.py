"""An analysis of one weights file or many, here or as Ray tasks; what is done is not done again."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data import DataError
from experiments.errors import InputError
from experiments.forward import pick_device
from experiments.results import check_writable, is_done
from experiments.stimuli.make import canonical
from experiments.weights import Weights, find_weights


class Settings(BaseModel):
    """Everything that decides the numbers of an analysis; kept in its result."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    MEMORY_ONLY: ClassVar[frozenset[str]] = frozenset()
    """Settings that decide how much memory is used and, but for rounding, no number."""

    seed: int = Field(default=0, ge=0)
    """Seed of all that is random: noise, shuffles, bootstraps."""


AnySettings = TypeVar("AnySettings", bound=Settings)


def settings_of(kind: type[AnySettings], arguments: argparse.Namespace) -> AnySettings:
    """The settings among the parsed flags; InputError names a flag whose value is not allowed."""
    values = {name: value for name, value in vars(arguments).items() if name in kind.model_fields}
    if "stimuli" in values:
        values["stimuli"] = tuple(dict.fromkeys(canonical(name) for name in values["stimuli"]))
    if values.get("path") is not None:
        values["path"] = str(Path(values["path"]).expanduser().absolute())
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(f"{flag}: {first['msg']}, got {first['input']!r}") from None


Compute = Callable[[Weights, Any, Path, torch.device], None]
"""compute(weights, settings, result file, device): writes the result file last."""

EPILOG = """exit codes: 0 done, 1 an analysis failed, 2 the input was wrong, 130 interrupted (the same
command does what is missing)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that all analyses share."""
    parser.add_argument(
        "--weights",
        nargs="+",
        required=True,
        metavar="GLOB",
        help="weights files with their .json beside them, or patterns: 'runs/fgru/trial_*/model.weights'",
    )
    parser.add_argument(
        "--out",
        default="runs/analysis",
        metavar="DIR",
        help="folder for results; those of other settings are replaced (default: runs/analysis)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all that is random (default: 0)")
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a GPU where there is one)")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="weights analysed at a time, as Ray tasks (default: one per GPU or two CPU cores)",
    )
    parser.add_argument("--fresh", action="store_true", help="do again what is done")


def run(
    arguments: argparse.Namespace,
    compute: Compute,
    settings: Settings,
    filename: str,
    check: Callable[[], object] = lambda: None,
) -> int:
    """Analyse every weights file that has no finished result yet; returns the exit code.

    A weights file whose analysis fails is reported and does not stop the others. What they share is looked at
    before the first: the device, what `check` raises InputError or DataError for, the folder.
    """
    out = Path(arguments.out).expanduser().absolute()
    check_writable(out)
    every = find_weights(arguments.weights)
    targets = [(weights, out / weights.label / filename) for weights in every]
    wanted = settings.model_dump(mode="json", exclude=set(settings.MEMORY_ONLY))
    todo = [pair for pair in targets if arguments.fresh or not is_done(pair[1], pair[0], wanted)]
    for weights, target in targets:
        if (weights, target) not in todo:
            print(f"{weights.label}: done already, {target}")
    for weights, target in todo:
        if target.exists():
            print(f"{weights.label}: replaces a result of other settings, {target}")
    if todo:
        if arguments.workers is not None and arguments.workers < 1:
            raise InputError(f"--workers: must be at least 1, got {arguments.workers}")
        if not os.environ.get("RAY_ADDRESS"):  # a cluster has other devices than this machine
            pick_device(arguments.device)
        check()
    failed = 0
    for count, (weights, target, seconds, problem) in enumerate(
        _results(todo, arguments, compute, settings), 1
    ):
        if problem is None:
            print(f"{count}/{len(todo)} {weights.label}: {seconds:.1f} s, {target}", flush=True)
        else:
            failed += 1
            print(f"{count}/{len(todo)} {weights.label}: {problem}", file=sys.stderr, flush=True)
    return 1 if failed else 0


Outcome = tuple[Weights, Path, float, str | None]


def _results(
    todo: list[tuple[Weights, Path]], arguments: argparse.Namespace, compute: Compute, settings: Settings
) -> Iterator[Outcome]:
    workers = arguments.workers
    if workers is None and not os.environ.get("RAY_ADDRESS"):
        workers = torch.cuda.device_count() or max(1, (os.cpu_count() or 1) // 2)
    if len(todo) <= 1 or workers == 1:
        device = pick_device(arguments.device)
        for weights, target in todo:
            started = time.perf_counter()
            if len(todo) == 1:
                compute(weights, settings, target, device)  # its error is the command's
                yield weights, target, time.perf_counter() - started, None
            else:
                yield _attempt(compute, weights, settings, target, device)
        return
    yield from _ray_results(todo, arguments.device, workers, compute, settings)


def _attempt(
    compute: Compute, weights: Weights, settings: Settings, target: Path, device: torch.device
) -> Outcome:
    started = time.perf_counter()
    problem = None
    try:
        compute(weights, settings, target, device)
    except (InputError, DataError) as error:
        problem = str(error)
    except Exception as error:  # one broken file must not end the other analyses
        problem = f"{type(error).__name__}: {error}"
    return weights, target, time.perf_counter() - started, problem


def _ray_results(
    todo: list[tuple[Weights, Path]],
    device_name: str | None,
    workers: int | None,
    compute: Compute,
    settings: Settings,
) -> Iterator[Outcome]:
    import ray

    started_here = not ray.is_initialized()
    if started_here:
        local = {} if os.environ.get("RAY_ADDRESS") else {"address": "local", "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.WARNING, **local)
    try:
        resources = ray.cluster_resources()
        cpus = int(resources.get("CPU", 1))
        gpus = int(resources.get("GPU", 0)) if device_name in (None, "cuda") else 0
        workers = min(len(todo), workers or gpus or max(1, cpus // 2))
        threads = max(1, cpus // workers)

        def attempt(weights: Weights, target: Path) -> Outcome:
            torch.set_num_threads(threads)
            return _attempt(compute, weights, settings, target, pick_device(device_name))

        task = ray.remote(num_cpus=threads, num_gpus=gpus / workers if gpus else 0, max_retries=1)(attempt)
        owner = {task.remote(weights, target): (weights, target) for weights, target in todo}
        waiting = list(owner)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            try:
                yield ray.get(done[0])
            except ray.exceptions.RayError as error:
                yield (*owner[done[0]], 0.0, f"its task died ({type(error).__name__})")
    finally:
        if started_here:
            ray.shutdown()


def guarded(main: Callable[[], int]) -> int:
    """Run a command: one line for what the user got wrong, the exit codes of EPILOG."""
    try:
        return main()
    except (InputError, DataError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. The same command does what is missing.", file=sys.stderr)
        return 130
