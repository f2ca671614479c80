"""What a trial costs beyond its training: inside reused trial processes, and the way Ray documents it.

Both run the same small configurations on the digits sample, two at a time, with the same searcher and no
early stopping. Overhead of a trial = time its slot was taken - sum of its epochs' wall times; the first trial
of each slot, which starts a process and imports torch, is counted apart.

    python benchmarks/trial_overhead.py --trials 8
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from ray import tune

from search.conductor import Conductor
from search.executor import Executor
from search.plan import FOR_NOTHING
from search.runner import build_tuner
from search.sections import Search
from search.spec import SearchSpec
from search.study import SearchStudy, trial_name
from search.workers import run_with_workers
from trainable import cluster
from trainable.distributed import Workers
from trainable.inprocess import run_trial
from trainable.tracking import read_rows

SEARCH: dict[str, Any] = {"scheduler": {"type": "none"}}
SPEC = SearchSpec(
    train={
        "dataset": "digits",
        "cell_type": "rnn",
        "skip_first": True,
        "filters": [4, 8],
        "pools": [True, True],
        "first_kernel": 3,
        "first_stride": 2,
        "batch_size": 128,
        "epochs": 8,
        "time_steps": 2,
    },
    space={"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}},
    search=SEARCH,
)


def overhead(trainable: Any, trials: int, concurrent: int, *, reuse: bool) -> tuple[float, float]:
    """Seconds of overhead per trial: (all trials, those in warm slots)."""
    with tempfile.TemporaryDirectory() as storage:
        folder = Path(storage) / "overhead"
        folder.mkdir()
        study = SearchStudy(folder, SPEC.model_copy(update={"search": Search(**SEARCH, num_samples=trials)}))
        executor = Executor(Conductor(study), concurrent, threads=1)
        started = datetime.now()
        build_tuner(executor, trainable, reuse=reuse, callbacks=[]).fit()
        slots = [started] * concurrent
        costs, warm = [], []
        for trial in sorted(study.finished(), key=lambda trial: trial.number):
            # Trials are handed out in order, each to the slot that was free first.
            slot = slots.index(min(slots))
            assert trial.datetime_complete is not None
            taken = (trial.datetime_complete - slots[slot]).total_seconds()
            work = sum(row["seconds"] for row in read_rows(folder / trial_name(trial.number)))
            costs.append(taken - work)
            if slots[slot] != started:
                warm.append(taken - work)
            slots[slot] = trial.datetime_complete
        assert len(costs) == trials
        return fmean(costs), fmean(warm)


def main() -> None:
    """Measure both ways and print their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=8, help="trials of each way (default: 8)")
    parser.add_argument("--ours-only", action="store_true", help="leave out the documented way (minutes)")
    arguments = parser.parse_args()
    trials = arguments.trials
    cluster.connect(dashboard=True)
    concurrent = min(2, cluster.capacity()[0])
    own, own_warm = overhead(tune.with_resources(run_trial, {"cpu": 1}), trials, concurrent, reuse=True)
    print(f"{trials} trials, {concurrent} at a time; seconds of overhead per trial")
    print(f"{'':32}{'all':>8}{'warm':>8}")
    print(f"{'in reused trial processes':32}{own:8.2f}{own_warm:8.2f}")
    if arguments.ours_only:
        return
    documented = tune.with_parameters(run_with_workers, workers=Workers())
    ray, ray_warm = overhead(tune.with_resources(documented, FOR_NOTHING), trials, concurrent, reuse=False)
    print(f"{'TorchTrainer in a Tune function':32}{ray:8.2f}{ray_warm:8.2f}")
    print(f"{'ratio':32}{ray / own:8.1f}{ray_warm / own_warm:8.1f}")


if __name__ == "__main__":
    main()
