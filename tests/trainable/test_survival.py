"""Runs that are killed at random, and runs whose disk is full."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.chaos_train import SETTINGS, chaos, child, differences
from tests.trainable.sessions import run
from trainable.atomic import StorageError
from trainable.checkpoint import CheckpointStore
from trainable.config import TrainConfig
from trainable.failure import ERROR_FILE, explain
from trainable.loop import train
from trainable.session import LocalSession


@pytest.mark.slow
def test_a_run_killed_with_9_at_ten_random_instants_ends_bit_by_bit_like_an_uninterrupted_one(
    tmp_path: Path,
) -> None:
    settings = {**SETTINGS, "epochs": 14}
    positions = chaos(settings, tmp_path / "killed", kills=10, seed=0, pace=0.15)
    child(settings, tmp_path / "whole")
    assert differences(tmp_path / "killed", tmp_path / "whole") == []
    assert len(positions) == 10
    assert len(set(positions)) > 4  # it was killed at many places,
    assert any(position and position.step for position in positions)  # within epochs too


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB: a few checkpoints of a small run."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"needs root to mount a small file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_when_there_is_space(
    tmp_path: Path, small: dict[str, Any], small_disk: Path
) -> None:
    settings = {**small, "filters": [4, 16], "epochs": 12, "checkpoint_interval": 1}
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * 100_000)
    with pytest.raises(StorageError, match=r"cannot be written: No space left on device") as error:
        train(TrainConfig(**settings), LocalSession(small_disk / "run", device=torch.device("cpu")))
    assert "\n" not in str(error.value)
    assert explain(error.value, small_disk / "run").count("\n") == 0
    checkpoints = small_disk / "run" / "checkpoints"
    assert not list(checkpoints.glob(".epoch_*"))  # nothing half-written stays and takes space
    assert CheckpointStore(checkpoints).load_latest() is not None
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    resumed, session = run(small_disk / "run", settings)
    assert session.reports[0]["epoch"] > 1
    whole, _ = run(tmp_path / "whole", settings)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_cause_of_a_failure_is_found_behind_what_wraps_it(tmp_path: Path) -> None:
    from ray.train import WorkerGroupError

    def behind(cause: Exception) -> str:
        return explain(WorkerGroupError("Traceback (most recent call last) ...", {0: cause}), tmp_path)

    assert behind(StorageError("/a: cannot be written: gone")).startswith("/a: cannot be written: gone; ")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")
    assert behind(full).startswith("/data/x: cannot be written: No space left on device")
    assert not (tmp_path / ERROR_FILE).exists()
    assert "ValueError: no such thing (details:" in behind(ValueError("no such thing\nmore"))
    assert "no such thing" in (tmp_path / ERROR_FILE).read_text()
