"""One configuration as its users run it, killed where it hurts."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import run_train
from benchmarks.chaos_train import differences
from tests.commands import ROOT, Start, write
from trainable.config import TrainConfig
from trainable.loop import WEIGHTS_FILE, train
from trainable.run_place import RunPlace
from trainable.session import LocalSession
from trainable.single import Run
from trainable.tracking import read_rows


def rows_in(storage: Path, at_least: int) -> Callable[[], bool]:
    return lambda: any(len(read_rows(folder)) >= at_least for folder in storage.glob("run-*"))


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_killed_with_9_and_stopped_by_a_time_limit_ends_like_an_uninterrupted_one(
    tmp_path: Path, command: Start, small: dict[str, Any]
) -> None:
    settings = {**small, "epochs": 30, "checkpoint_interval": 50, "checkpoint_every_steps": 5}
    path = write(tmp_path / "run.json", settings)
    arguments = ("run_train.py", path, "--out", tmp_path / "out.weights", "--storage", tmp_path / "runs")
    first = command(*arguments)
    first.wait_for(rows_in(tmp_path / "runs", 2), timeout=300)
    os.kill(first.pid, signal.SIGKILL)  # its workers outlive it for a moment
    first.wait()
    assert not (tmp_path / "out.weights").exists()

    second = command(*arguments)
    second.wait_for_line("Going on from the last checkpoint", timeout=300)
    done = max(len(read_rows(folder)) for folder in (tmp_path / "runs").glob("run-*"))
    second.wait_for(rows_in(tmp_path / "runs", done + 2), timeout=300)
    os.killpg(second.pid, signal.SIGTERM)  # a scheduler's signal reaches every process of the job
    output = second.finish(code=130)
    assert "epoch 1/30" not in output
    assert re.search(r"SIGTERM: saving a checkpoint[\s\S]*Stopped; epoch \d+", output)

    output = command(*arguments).finish()
    assert "epoch 30/30" in output
    # The one worker of the command had all cores.
    train(TrainConfig(**settings), LocalSession(tmp_path / "whole", threads=os.cpu_count() or 1))
    (folder,) = (tmp_path / "runs").glob("run-*")
    assert differences(folder, tmp_path / "whole") == []
    assert (tmp_path / "out.weights").read_bytes() == (folder / WEIGHTS_FILE).read_bytes()


@pytest.mark.slow
@pytest.mark.ray
def test_two_workers_of_which_one_is_stopped_follow_the_loss_of_one(
    tmp_path: Path, command: Start, small: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    # sgd: adam divides by the size of a gradient and so blows up the rounding of tiny ones.
    changes = {"dropout": 0.0, "cell_type": "gru", "time_steps": 1, "optimizer": "sgd", "epochs": 30}
    settings = {**small, **changes}
    path = write(tmp_path / "run.json", settings)
    arguments = ("run_train.py", path, "--workers", 2, "--storage", tmp_path / "runs")
    first = command(*arguments)
    first.wait_for(rows_in(tmp_path / "runs", 1), timeout=300)
    everyone = psutil.Process(first.pid).children(recursive=True)
    workers = [process for process in everyone if "RayTrainWorker" in " ".join(process.cmdline())]
    assert len(workers) == 2
    workers[-1].send_signal(signal.SIGUSR1)
    output = first.finish(code=130)
    assert "Stopped; epoch" in output
    assert "epoch 30/30" in command(*arguments).finish()
    assert run_train.main([str(argument) for argument in arguments[1:]]) == 0
    assert "This run is finished already" in capsys.readouterr().out
    (folder,) = (tmp_path / "runs").glob("run-*")
    session = LocalSession(tmp_path / "one")
    train(TrainConfig(**settings), session)
    for two, one in list(zip(read_rows(folder), session.reports, strict=True))[:3]:
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
        assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-4)
        assert two["val_acc"] == pytest.approx(one["val_acc"], abs=0.01)


@pytest.mark.slow
@pytest.mark.ray
def test_several_configs_run_one_after_the_other_and_one_that_fails_stops_none(
    tmp_path: Path, command: Start, small: dict[str, Any]
) -> None:
    bad = {**small, "optimizer": "sgd", "normalization": "none", "learning_rate": 1e20}
    template = shutil.copy(ROOT / "configs" / "template.yaml", tmp_path / "gut & schön.yaml")
    configs = [write(tmp_path / "diverging.json", bad), template]
    arguments = ("run_train.py", *configs, "--storage", tmp_path / "runs", "--out", f"{tmp_path}/weights/")
    output = command(*arguments, "--set", "epochs=2").finish(code=1)
    assert re.search(r"diverged in epoch 1, step \d+ of the run: \w+", output)
    assert "epoch 2/2" in output
    assert "1 of 2 configs done; failed: " in output
    assert [path.name for path in (tmp_path / "weights").glob("*.weights")] == ["gut & schön.weights"]
    about = json.loads((tmp_path / "weights" / "gut & schön.weights.json").read_text())
    assert about["metrics"]["epoch"] == 2
    assert torch.load(tmp_path / "weights" / "gut & schön.weights", weights_only=True)


def test_a_run_is_not_continued_under_other_settings(
    tmp_path: Path, small: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with RunPlace(tmp_path / "first").claimed(TrainConfig(**small), fresh=False):
        pass
    path = write(tmp_path / "run.json", {**small, "epochs": 9})
    assert run_train.main([str(path), "--storage", str(tmp_path), "--name", "first"]) == 2
    problem = capsys.readouterr().err
    assert re.search(r"first holds a run with other settings \(epochs: 3 -> 9\).*--fresh.*--force", problem)


@pytest.mark.parametrize(
    ("do_reload", "arguments", "fresh"),
    [
        (True, [], False),
        (False, [], True),
        (False, ["--resume"], False),
        (False, ["--force"], False),
        (True, ["--fresh"], True),
    ],
)
def test_what_the_command_line_asks_for_is_more_than_do_reload(
    tmp_path: Path,
    small: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    do_reload: bool,
    arguments: list[str],
    fresh: bool,
) -> None:
    settings = {**small, "do_reload": do_reload}
    path = write(tmp_path / "run.json", settings)
    train(TrainConfig(**{**settings, "epochs": 1}), LocalSession(tmp_path / "first"))
    runs: list[Run] = []
    monkeypatch.setattr(Run, "train", lambda self, workers: runs.append(self) or 0)
    assert run_train.main([str(path), "--storage", str(tmp_path), "--name", "first", *arguments]) == 0
    assert [run.fresh for run in runs] == [fresh]


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({"lr": 1}, [], "lr: unknown key"),
        ({"epochs": "soon"}, [], "epochs: .*'soon'"),
        ({"batch_size": 100000}, [], "batch_size: must not exceed the 1438 training images"),
        ({"batch_size": 33}, ["--workers", "2"], "batch_size: must be a multiple of the 2 workers"),
        ({"filters": [4, 8, 8], "pools": None}, [], "give pools too"),
        ({"image_size": 8, "first_kernel": 7}, [], "too small"),
        ({}, ["--resume"], "no checkpoint to resume from"),
        ({}, ["--out", "/nowhere/deep/x.weights"], "--out: no folder /nowhere/deep"),
        ({}, ["--out", "/proc/x.weights"], "--out: /proc cannot be written"),
        ({}, ["--storage", "s3:/bucket/runs"], "s3:/bucket/runs: must be a folder, or s3://BUCKET/FOLDER"),
        ({}, ["--storage", "/proc/runs"], "--storage: /proc cannot be written"),
        ({}, ["--init", "/nowhere.weights"], "init: /nowhere.weights: no such file"),
        ({}, ["--name", "a/b"], "--name: must be the name of a folder"),
    ],
)
def test_wrong_input_ends_with_2_and_names_it(
    tmp_path: Path,
    small: dict[str, Any],
    change: dict[str, Any],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path / "run.json", {**small, **change})
    assert run_train.main([str(path), "--storage", str(tmp_path / "runs"), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()
