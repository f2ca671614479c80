"""Memory that runs out in the midst of a run changes how many images go at a time, and nothing else."""

import math
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.commands import ROOT, SMALL, write
from tests.trainable.sessions import DyingSession, Killed, assert_same, run
from trainable.config import TrainConfig
from trainable.loop import train
from trainable.memory import MicroBatch, TooLarge, is_out_of_memory, peak_gib, reset_peak
from trainable.tracking import read_rows

CONVOLUTIONS = (
    torch.ops.aten.convolution.default,
    torch.ops.aten.convolution_backward.default,
    torch.ops.aten.conv2d.default,  # under inference_mode
)


class Allocator(TorchDispatchMode):
    """Refuses convolutions of more than `images` images, from the `after`-th convolution on."""

    def __init__(self, images: int, after: int = 0) -> None:
        super().__init__()
        self.images, self.after, self.refused = images, after, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in CONVOLUTIONS and not args[0].is_meta:
            self.after -= 1
            if self.after < 0 and args[0].shape[0] > self.images:
                self.refused += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return func(*args, **(kwargs or {}))


@contextmanager
def memory_for(images: int, after: int = 0) -> Iterator[Allocator]:
    with Allocator(images, after) as allocator:
        yield allocator


@pytest.fixture
def settings(small: dict[str, Any]) -> dict[str, Any]:
    """With dropout and batch normalization: both would remember a step that was made twice."""
    return {**small, "normalization": "batchnorm", "dropout": 0.2, "epochs": 2, "batch_size": 200}


# A step has three convolutions forward and three backward.
@pytest.mark.parametrize("after", [0, 2, 4])
def test_a_step_that_ran_out_of_memory_is_the_one_of_a_smaller_batch_max(
    tmp_path: Path, settings: dict[str, Any], after: int
) -> None:
    expected, _ = run(tmp_path / "asked", {**settings, "batch_max": 50})
    with memory_for(images=70, after=after) as allocator:
        weights, session = run(tmp_path / "forced", settings)
    assert allocator.refused == 2  # 200 and 100 images
    assert_same(expected, weights)
    first, second = session.reports
    assert (first["micro_batch"], second["micro_batch"]) == (50, 50)
    assert [note[:67] for note in first["notes"]] == [
        "out of memory in step 1 with 200 images at a time: going on with 10",
        "out of memory in step 1 with 100 images at a time: going on with 50",
    ]
    assert "notes" not in second


def test_the_smaller_micro_batch_is_remembered_on_resume(tmp_path: Path, settings: dict[str, Any]) -> None:
    settings["checkpoint_every_steps"] = 2
    with memory_for(images=70), pytest.raises(Killed):
        train(TrainConfig(**settings), DyingSession(tmp_path / "forced", dies=5))
    with memory_for(images=70) as allocator:
        weights, _ = run(tmp_path / "forced", settings)
    assert allocator.refused == 0
    expected, _ = run(tmp_path / "asked", {**settings, "batch_max": 50})
    assert_same(expected, weights)


def test_batch_max_auto_finds_out_before_the_first_step(tmp_path: Path, settings: dict[str, Any]) -> None:
    expected, _ = run(tmp_path / "asked", {**settings, "batch_max": 50})
    with memory_for(images=70):
        weights, session = run(tmp_path / "auto", {**settings, "batch_max": "auto"})
    assert_same(expected, weights)
    assert session.reports[0]["notes"][0].startswith("out of memory in the trial before the first step")


def test_validation_that_runs_out_of_memory_counts_every_image_once(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    _, whole = run(tmp_path / "whole", {**settings, "batch_max": 100, "epochs": 1})
    # Seven steps of two micro-batches with six convolutions each; then the first batch of validation.
    with memory_for(images=60, after=7 * 2 * 6 + 1) as allocator:
        _, session = run(tmp_path / "forced", {**settings, "batch_max": 100, "epochs": 1})
    assert allocator.refused == 1
    assert "in validation" in session.reports[0]["notes"][0]
    for name in ("val_acc", "val_acc5", "val_acc_t", "train_loss"):
        assert session.reports[0][name] == whole.reports[0][name]
    assert session.reports[0]["val_loss"] == pytest.approx(whole.reports[0]["val_loss"])


def test_one_image_that_does_not_fit_ends_the_run_with_one_line(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    with memory_for(images=0), pytest.raises(TooLarge, match="step 1 with one image at a time: CUDA out of"):
        run(tmp_path, settings)


def test_other_errors_are_not_taken_for_missing_memory() -> None:
    assert not is_out_of_memory(RuntimeError("The size of tensor a (3) must match"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert is_out_of_memory(error.value)


def test_halving_rounds_up_and_ends_at_one() -> None:
    micro = MicroBatch(3)
    micro.halve("here", MemoryError())
    assert micro.size == 2
    micro.halve("here", MemoryError())
    with pytest.raises(TooLarge, match="MemoryError"):
        micro.halve("here", MemoryError())


def test_the_peak_of_an_epoch_is_its_own() -> None:
    cpu = torch.device("cpu")
    before = peak_gib(cpu)
    block = torch.ones(2**26)  # a quarter of a GiB
    assert peak_gib(cpu) > before + 0.2
    del block
    reset_peak(cpu)
    assert peak_gib(cpu) < before + 0.15


LIMITED = """
import json, resource, sys
from pathlib import Path
from trainable.config import TrainConfig
from trainable.loop import train
from trainable.session import LocalSession
import torch._dynamo, torch.utils.tensorboard  # else imported on the way

class Limited(LocalSession):
    limited = False

    def stop_requested(self):
        # The first step is about to begin: all that this machine's cores and threads need is there.
        if not self.limited:
            used = next(line for line in open("/proc/self/status") if line.startswith("VmSize"))
            limit = int(used.split()[1]) * 1024 + int(sys.argv[3]) * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            self.limited = True
        return super().stop_requested()

resource.setrlimit(resource.RLIMIT_AS, (2**46, 2**46))  # limited from the start, as by ulimit
train(TrainConfig(**json.loads(Path(sys.argv[1]).read_text())), Limited(Path(sys.argv[2])))
"""


@pytest.mark.slow
def test_a_run_under_a_real_memory_limit_goes_on_with_fewer_images(tmp_path: Path) -> None:
    settings = {
        **SMALL,
        "filters": [32, 32],
        "first_stride": 1,
        "image_size": 64,
        "batch_size": 256,  # about 400 MiB in one step
        "epochs": 1,
        "time_steps": 1,
    }
    path = write(tmp_path / "run.json", settings)
    command = [sys.executable, "-c", LIMITED, str(path), str(tmp_path / "run"), "220"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = read_rows(tmp_path / "run")
    assert row["micro_batch"] < 256
    assert row["finished"] is True
    assert row["notes"]
    assert math.isfinite(row["train_loss"])
