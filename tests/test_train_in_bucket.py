"""A run whose storage is a bucket: killed, moved to a machine with an empty disk."""

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_train
from benchmarks.chaos_train import differences
from tests.commands import Start, kill_all, write
from trainable import correspondence
from trainable.config import TrainConfig
from trainable.errors import ConfigError
from trainable.lease import Lease, Terms
from trainable.loop import WEIGHTS_FILE, train
from trainable.mirror import Mirror
from trainable.progress import StepReporter
from trainable.remote import Remote
from trainable.run_bucket import RunBucket
from trainable.session import LocalSession
from trainable.signals import StopWatch
from trainable.working import working_folder

EPOCHS = 30


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_killed_on_one_machine_ends_on_another_like_an_uninterrupted_one(
    tmp_path: Path, command: Start, small: dict[str, Any], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECURRENT_VISION_SCRATCH", str(tmp_path / "one"))
    settings = {**small, "epochs": EPOCHS, "checkpoint_interval": 3}
    path, out = write(tmp_path / "run.json", settings), tmp_path / "out.weights"
    arguments = ("run_train.py", path, "--storage", bucket, "--name", "run", "--out", out)
    remote = Remote(bucket).child("run")

    def rows() -> int:
        return len((remote.read("result.json") or b"").splitlines())

    first = command(*arguments)
    first.wait_for(lambda: rows() >= 5, timeout=300)
    kill_all(first)
    assert rows() < EPOCHS
    shutil.rmtree(tmp_path / "one")

    monkeypatch.setenv("RECURRENT_VISION_SCRATCH", str(tmp_path / "two"))
    output = command(*arguments).finish()
    assert re.search(r"Going on from the last checkpoint: epoch \d", output)
    assert "epoch 1/30" not in output
    assert "epoch 30/30" in output
    assert f"Run folder: {bucket}/run" in output
    train(TrainConfig(**settings), LocalSession(tmp_path / "whole", threads=os.cpu_count() or 1))
    Mirror(tmp_path / "there", remote).pull(lambda name: True)
    assert differences(tmp_path / "there", tmp_path / "whole") == []
    assert out.read_bytes() == (tmp_path / "there" / WEIGHTS_FILE).read_bytes()
    names = set(remote.entries())
    assert {"config.json", "params.json", "model.weights.json"} < names
    assert ".lease" not in names
    assert not list((tmp_path / "two").glob("*/run"))  # nothing is left behind here


def test_the_command_stops_its_workers_and_hears_how_far_they_are(
    bucket: str, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correspondence, "SECONDS", 0.1)
    place = RunBucket.at(bucket, "run")
    with place.claimed(TrainConfig(**small), fresh=False):
        place.ask_to_stop("an earlier command")
        assert place.asked_to_stop
        place.forget_stop()
        assert not place.asked_to_stop
        run = {"remote": place.remote, "stoppable": True}
        with working_folder(run) as first, working_folder(run, writes=False) as second:
            assert not StopWatch(first.path).requested()
            StepReporter(first.path).step(2, 3, 40)
            wait_for(lambda: "progress.json" in Remote(place.remote).entries())
            place.read()
            assert json.loads((place.folder / "progress.json").read_text())["step"] == 3
            place.ask_to_stop("SIGTERM")
            for worker in (first, second):
                wait_for(lambda worker=worker: StopWatch(worker.path).requested())
            first.store()
        assert not first.path.exists()
        place.forget_stop()
        with working_folder(run) as again:
            time.sleep(0.5)
            assert not StopWatch(again.path).requested()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run(*arguments: object) -> int:
    return run_train.main([str(argument) for argument in arguments])


def test_changed_settings_and_a_missing_checkpoint_are_found_in_the_bucket(
    tmp_path: Path, small: dict[str, Any], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "run.json", small)
    with RunBucket.at(bucket, "run").claimed(TrainConfig(**small), fresh=False):
        pass
    arguments = (path, "--storage", bucket, "--name", "run")
    assert run(*arguments, "--resume") == 2
    assert capsys.readouterr().err == f"{bucket}/run: no checkpoint to resume from\n"
    assert run(*arguments, "--set", "learning_rate=0.5") == 2
    problem = capsys.readouterr().err
    assert problem.startswith(f"{bucket}/run holds a run with other settings (learning_rate: 0.01 -> 0.5)")


def test_two_commands_at_once_are_refused(
    tmp_path: Path, small: dict[str, Any], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "run.json", small)
    lease = Lease(Remote(bucket).child("run"), Terms(renew=0.5))
    lease.acquire(print)
    try:
        assert run(path, "--storage", bucket, "--name", "run", "--fresh") == 2
        assert f"{bucket}/run: another process trains this run: process" in capsys.readouterr().err
    finally:
        lease.release()


def test_fresh_deletes_a_run_and_nothing_else(bucket: str, small: dict[str, Any]) -> None:
    remote, config = Remote(bucket).child("run"), TrainConfig(**small)
    remote.write("cat.jpg", b"x")
    with (
        pytest.raises(ConfigError, match="run: holds no run, and starting over would delete"),
        RunBucket(remote).claimed(config, fresh=True),
    ):
        pass
    assert set(remote.entries()) == {"cat.jpg"}
    for name in ("config.json", "checkpoints/epoch_0001.pt", "checkpoints/epoch_0001.json", "model.weights"):
        remote.write(name, b"{}")
    place = RunBucket(remote)
    place.read()
    assert place.last_checkpoint() == (1, 0)
    with place.claimed(config, fresh=True):
        assert set(remote.entries()) == {".lease", "config.json"}
        assert place.last_checkpoint() is None
    assert set(remote.entries()) == {"config.json"}


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("s3://nobucket/x", r"s3://nobucket/x/run: there is no bucket nobucket\n"),
        ("gs://bucket/x", r"gs://bucket/x: must be a folder, or s3://BUCKET/FOLDER\n"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_cannot_be_used_is_one_line_and_2(
    tmp_path: Path, small: dict[str, Any], storage: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write(tmp_path / "run.json", small), "--storage", storage, "--name", "run") == 2
    assert re.fullmatch(message, capsys.readouterr().err)
