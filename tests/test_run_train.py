"""One configuration as its users run it, killed where it hurts."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import finish, kill, wait_for, write
from trainable.config import TrainConfig
from trainable.loop import WEIGHTS_FILE, train
from trainable.session import LocalSession
from trainable.tracking import read_rows

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_killed_with_9_ends_like_an_uninterrupted_one(
    tmp_path: Path, command: Start, small: dict[str, Any]
) -> None:
    settings = {**small, "epochs": 30, "checkpoint_interval": 2}
    path = write(tmp_path / "run.json", settings)
    arguments = ("run_train.py", path, "--out", tmp_path / "out.weights", "--storage", tmp_path / "runs")
    first = command(*arguments)

    def under_way() -> bool:
        return any(len(read_rows(folder)) >= 5 for folder in (tmp_path / "runs").glob("run-*"))

    wait_for(under_way, first)
    kill(first)
    assert not (tmp_path / "out.weights").exists()
    output = finish(command(*arguments))
    assert "going on from the last checkpoint" in output
    assert "epoch 30/30" in output
    assert "epoch 1/30" not in output

    # The one worker of the command had all cores.
    train(TrainConfig(**settings), LocalSession(tmp_path / "whole", threads=os.cpu_count() or 1))
    resumed = torch.load(tmp_path / "out.weights", weights_only=True)
    whole = torch.load(tmp_path / "whole" / WEIGHTS_FILE, weights_only=True)
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name
    assert "finished already" in finish(command(*arguments))


@pytest.mark.slow
@pytest.mark.ray
def test_two_workers_follow_the_loss_of_one(tmp_path: Path, command: Start, small: dict[str, Any]) -> None:
    # sgd: adam divides by the size of a gradient and so blows up the rounding of tiny ones.
    settings = {**small, "dropout": 0.0, "cell_type": "gru", "time_steps": 1, "optimizer": "sgd"}
    path = write(tmp_path / "run.json", settings)
    finish(command("run_train.py", path, "--workers", 2, "--storage", tmp_path / "runs"))
    (folder,) = (tmp_path / "runs").glob("run-*")
    session = LocalSession(tmp_path / "one")
    train(TrainConfig(**settings), session)
    for two, one in zip(read_rows(folder), session.reports, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
        assert two["val_loss"] == pytest.approx(one["val_loss"], rel=1e-4)
        assert two["val_acc"] == pytest.approx(one["val_acc"], abs=0.01)
    about = json.loads((folder / "model.weights.json").read_text())
    assert about["metrics"]["epoch"] == 3


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
        ({}, ["--out", "/nowhere/x.weights"], "--out: no folder /nowhere"),
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
    import re

    import run_train

    path = write(tmp_path / "run.json", {**small, **change})
    assert run_train.main([str(path), "--storage", str(tmp_path / "runs"), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()
