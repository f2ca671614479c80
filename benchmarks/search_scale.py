"""What a thousand trials that do nothing cost, whether the cost stays flat, and how long a resume takes.

Three figures: milliseconds per trial in each fifth of a search whose trials report once and end (in reused
trial processes, TPE, ASHA, every step in the journal); the time from a trial's report to the decision about
it; and seconds until a search with that many trials hands out its next one after a restart. The documented
pattern (Ray's own OptunaSearch with the same sampler) runs beside it.

    python benchmarks/search_scale.py --trials 1000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from search.conductor import Conductor
from search.executor import Executor
from search.runner import build_tuner
from search.spec import SearchSpec
from search.study import SearchStudy
from trainable import cluster


def make_spec(trials: int) -> SearchSpec:
    """Five parameters, so that TPE has something to think about."""
    return SearchSpec(
        train={"dataset": "digits", "cell_type": "rnn", "batch_size": 64, "epochs": 3},
        space={
            "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "weight_decay": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.5},
            "time_steps": {"type": "int", "low": 1, "high": 8},
            "activation": {"type": "categorical", "choices": ["relu", "elu", "tanh"]},
        },
        search={"num_samples": trials},
    )


def quick_trial(trial: dict[str, Any]) -> None:
    """Reports three times and ends; the time between two reports is what a decision takes to come back."""
    waits = []
    for epoch in (1, 2, 3):
        started = time.perf_counter()
        row: dict[str, Any] = {"epoch": epoch, "val_acc": trial["config"]["learning_rate"] * epoch}
        if epoch == 3:
            row["finished"] = True
        tune.report(row)
        waits.append(time.perf_counter() - started)
    with (Path(trial["folder"]).parent / "waits.txt").open("a") as file:
        file.write("".join(f"{wait}\n" for wait in waits[:2]))


def per_fifth(ends: list[float], started: float) -> str:
    """Milliseconds per trial in each fifth of a search."""
    marks = [started, *(ends[len(ends) * fifth // 5 - 1] for fifth in range(1, 6))]
    return "  ".join(
        f"{1000 * 5 * (after - before) / len(ends):6.1f}"
        for before, after in zip(marks, marks[1:], strict=False)
    )


class Ends(tune.Callback):
    """Notes when trials end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        self.times.append(time.perf_counter())


def ours(trials: int, folder: Path, concurrent: int) -> None:
    """This project's way; prints its figures."""
    folder.mkdir()
    study = SearchStudy(folder, make_spec(trials))
    ends = Ends()
    executor = Executor(Conductor(study), concurrent, 1)
    started = time.perf_counter()
    build_tuner(executor, tune.with_resources(quick_trial, {"cpu": 1}), reuse=True, callbacks=[ends]).fit()
    wall = time.perf_counter() - started
    print(f"{trials} trials, {concurrent} at a time: {wall:.1f} s, {1000 * wall / trials:.1f} ms per trial")
    print(f"  ms per trial, by fifth          {per_fifth(ends.times, started)}")
    waits = sorted(map(float, (folder / "waits.txt").read_text().split()))
    print(
        f"  report to decision, ms          median {1000 * waits[len(waits) // 2]:.1f}  "
        f"99 % {1000 * waits[len(waits) * 99 // 100]:.1f}  largest {1000 * waits[-1]:.1f}"
    )
    started = time.perf_counter()
    again = SearchStudy(folder, make_spec(trials + 1))
    opened = time.perf_counter() - started
    Conductor(again).next()
    print(f"  resume: journal read in {opened:.2f} s, next trial after {time.perf_counter() - started:.2f} s")


def documented_trial(config: dict[str, Any]) -> None:
    """The same as a plain Tune function."""
    for epoch in (1, 2, 3):
        tune.report({"epoch": epoch, "val_acc": config["learning_rate"] * epoch})


def define_by_run(trial: optuna.Trial) -> None:
    """The same parameters for Ray's OptunaSearch."""
    for name, parameter in make_spec(1).space.items():
        parameter.suggest(trial, name)


def documented(trials: int, folder: Path, concurrent: int) -> None:
    """Ray's documented way: OptunaSearch and ASHAScheduler; prints its figures."""

    ends = Ends()
    sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True, constant_liar=True)
    started = time.perf_counter()
    tune.Tuner(
        tune.with_resources(documented_trial, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(define_by_run, metric="val_acc", mode="max", sampler=sampler),
            scheduler=ASHAScheduler(time_attr="epoch", metric="val_acc", mode="max", max_t=3),
            num_samples=trials,
            max_concurrent_trials=concurrent,
        ),
        run_config=tune.RunConfig(name="documented", storage_path=str(folder), callbacks=[ends], verbose=0),
    ).fit()
    wall = time.perf_counter() - started
    print(f"documented pattern: {trials} trials, {wall:.1f} s, {1000 * wall / trials:.1f} ms per trial")
    print(f"  ms per trial, by fifth          {per_fifth(ends.times, started)}")


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000, help="trials of ours (default: 1000)")
    parser.add_argument("--documented", type=int, default=40, help="trials of the documented pattern")
    arguments = parser.parse_args()
    cluster.connect(dashboard=False)
    concurrent = min(2, cluster.capacity()[0])
    with tempfile.TemporaryDirectory() as storage:
        ours(arguments.trials, Path(storage) / "scale", concurrent)
        if arguments.documented:
            documented(arguments.documented, Path(storage), concurrent)


if __name__ == "__main__":
    main()
