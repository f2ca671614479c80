"""Trials that hang, crash, die and don't fit, in a real Ray."""

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from optuna.trial import TrialState
from ray import tune
from rich.console import Console

from search.conductor import Conductor
from search.executor import Executor
from search.plan import Plan
from search.progress import Progress
from search.runner import build_tuner
from search.spec import SearchSpec
from search.study import SearchStudy
from search.workers import release
from tests.commands import SMALL
from tests.search.conftest import make_spec
from trainable import cluster
from trainable.distributed import Workers
from trainable.inprocess import run_trial

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def one_cluster() -> Iterator[None]:
    """A local Ray of two cores without a dashboard, for all tests of this file."""
    cluster.connect(dashboard=False)
    yield
    ray.shutdown()


def search(folder: Path, spec: SearchSpec, work: Callable[[dict[str, Any]], None]) -> SearchStudy:
    """Run a search whose trials do made-up work, two at a time."""

    def trainable(trial: dict[str, Any]) -> None:
        from trainable.inprocess import guarded

        guarded(Path(trial["folder"]), lambda: work(trial))

    study = SearchStudy(folder, spec)
    executor = Executor(Conductor(study), concurrent=2, threads=1)
    progress = Progress(study, Console(file=io.StringIO()))  # as a search has it
    build_tuner(executor, tune.with_resources(trainable, {"cpu": 1}), reuse=True, callbacks=[progress]).fit()
    return study


def test_trials_that_hang_crash_die_or_do_not_fit_end_with_their_cause(tmp_path: Path) -> None:
    def work(trial: dict[str, Any]) -> None:
        import ctypes
        import os
        import time
        from pathlib import Path

        from ray import tune

        number, folder = trial["number"], Path(trial["folder"])
        first_time = not (folder / "started").exists()
        (folder / "started").touch()
        if number == 0 and first_time:
            tune.report({"epoch": 1, "val_acc": 0.5})
            ctypes.PyDLL(None).sleep(1000)  # hangs in C, with Python's lock held
        if number == 1:
            print("what the trial said before")
            raise ValueError("boom")
        if number == 2 and first_time:
            os.kill(os.getpid(), 9)
        if number == 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 3 GiB")
        for epoch in (1, 9):
            time.sleep(0.1)
            tune.report({"epoch": epoch, "val_acc": 0.5, **({"finished": True} if epoch == 9 else {})})

    spec = make_spec(num_samples=6, max_failures=2, trial_timeout=45, scheduler={"type": "none"})
    study = search(tmp_path, spec, work)
    states = [trial.state for trial in study.trials()]
    fail, complete = TrialState.FAIL, TrialState.COMPLETE
    assert states == [complete, fail, complete, TrialState.PRUNED, complete, complete]
    raised, large = study.trial(1).user_attrs, study.trial(3).user_attrs
    assert set(study.failures(0)) == {"timeout: no report for 45 s"}
    assert [report.epoch for report in study.reports(0)] == [1, 9]
    assert raised["cause"] == "ValueError: boom"
    assert "what the trial said before" in raised["log"]
    assert "ValueError: boom" in raised["log"]
    assert study.failures(2)[0] == "its process died (killed, or a crash in C code)"
    assert large["cause"].startswith("out of memory: CUDA out of memory")
    assert len(study.failures(1)) == 3
    assert study.failures(3) == []


def test_short_trials_fill_every_slot(tmp_path: Path) -> None:
    def trainable(trial: dict[str, Any]) -> None:
        import os
        from pathlib import Path

        folder = Path(trial["folder"])
        folder.mkdir(exist_ok=True)
        (folder / "pid").write_text(str(os.getpid()))
        run_trial(trial)  # a second; a process that has to import torch first takes many to start

    study = SearchStudy(tmp_path, make_spec(num_samples=10, scheduler={"type": "none"}))
    executor = Executor(Conductor(study), concurrent=2, threads=1)
    build_tuner(executor, tune.with_resources(trainable, {"cpu": 1}), reuse=True, callbacks=[]).fit()
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE] * 10
    assert len({(tmp_path / f"trial_{n:04d}" / "pid").read_text() for n in range(10)}) == 2


def test_promotions_run_each_epoch_once(tmp_path: Path) -> None:
    def work(trial: dict[str, Any]) -> None:
        from pathlib import Path

        from ray import tune

        done = Path(trial["folder"]) / "epochs"
        while True:
            epoch = len(done.read_text().split()) + 1 if done.exists() else 1
            with done.open("a") as file:
                file.write(f"{epoch}\n")
            tune.report(
                {
                    "epoch": epoch,
                    "val_acc": -abs(trial["config"]["learning_rate"] - 0.01),
                    **({"finished": True} if epoch == 9 else {}),
                }
            )
            if epoch == 9:
                return

    study = search(tmp_path, make_spec(num_samples=9, scheduler={"promote": True}), work)
    epochs = [len((tmp_path / f"trial_{n:04d}" / "epochs").read_text().split()) for n in range(9)]
    assert sorted(epochs)[:5] == [1] * 5  # nobody beyond the first rung but those promoted
    assert epochs.count(9) >= 1
    for number, count in enumerate(epochs):
        assert [report.epoch for report in study.reports(number)] == list(range(1, count + 1))
    assert all(trial.state.is_finished() for trial in study.trials())


def test_a_stopped_trial_of_two_workers_frees_its_cores_without_a_dashboard(tmp_path: Path) -> None:
    if ray.cluster_resources()["CPU"] < 2:
        pytest.skip("two workers need two cores")
    fixed = {key: value for key, value in SMALL.items() if key != "learning_rate"}
    spec = SearchSpec(
        train={**fixed, "epochs": 200},
        space={"learning_rate": {"type": "categorical", "choices": [0.01, 1e-9]}},
        search={
            "num_samples": 2,
            "scheduler": {"grace_period": 1},
            "points_to_evaluate": [{"learning_rate": 0.01}, {"learning_rate": 1e-9}],
        },
        resources={"workers": 2},
    )
    study = SearchStudy(tmp_path, spec)
    conductor = Conductor(study)
    first = conductor.next()
    assert first is not None
    conductor.report(first.number, {"epoch": 1, "val_acc": 0.99})
    conductor.report(first.number, {"epoch": 200, "val_acc": 0.99, "finished": True})
    plan = Plan(Workers(count=2, cpus=1), 1)
    freed: list[float] = []

    def timed_release(folder: Path) -> None:
        started = time.monotonic()
        release(folder)
        while ray.available_resources().get("CPU", 0) < 2 and time.monotonic() - started < 30:
            time.sleep(0.05)
        freed.append(time.monotonic() - started)

    executor = Executor(conductor, 1, 1, timed_release)
    build_tuner(executor, plan.trainable(), reuse=False, callbacks=[]).fit()
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE", "PRUNED"]
    assert freed
    assert freed[0] < 5
    groups = ray.util.placement_group_table().values()
    assert [group for group in groups if group["state"] != "REMOVED"] == []
