"""Two workers with the same effective batch do what one does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import ROOT, SMALL, write
from tests.trainable.sessions import Weights, assert_same, run
from trainable.loop import WEIGHTS_FILE
from trainable.tracking import read_rows

# sgd: adam divides by the size of a gradient and so blows up the rounding of tiny ones.
BASE: dict[str, Any] = {
    **SMALL,
    "dropout": 0.0,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "epochs": 2,
    "checkpoint_every_steps": 100,
}
PLAIN = {**BASE, "time_loss": "uniform", "ema_decay": 0.9, "label_smoothing": 0.1}
SYNCED = {**BASE, "normalization": "batchnorm", "sync_batchnorm": True}
OWN = {**BASE, "normalization": "batchnorm", "cell_type": "gru", "dropout": 0.2}
JOBS = [
    {"name": "plain", "settings": PLAIN},
    {"name": "synced", "settings": SYNCED},
    {"name": "crowded", "settings": PLAIN, "rank": 1, "images": 20},
    {"name": "own", "settings": OWN},
    {"name": "stopped", "settings": OWN, "rank": 1, "stops": 14},
    {"name": "stopped", "settings": OWN},
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two workers have done all JOBS."""
    folder = tmp_path_factory.mktemp("workers")
    jobs = write(folder / "jobs.json", JOBS)
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.trainable.gloo_workers", str(rank), str(folder), str(jobs)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors
    return folder


def weights_in(folder: Path) -> Weights:
    weights: Weights = torch.load(folder / WEIGHTS_FILE, weights_only=True)
    return weights


@pytest.mark.parametrize(
    ("name", "settings", "tolerance"),
    [
        # A worker's share as one micro-batch: the same sums in the same order.
        ("plain", {**PLAIN, "batch_max": 64}, 1e-6),
        # In another order; training amplifies the rounding.
        ("plain", PLAIN, 1e-3),
        ("crowded", PLAIN, 1e-3),
        ("synced", SYNCED, 2e-3),
    ],
)
def test_two_workers_follow_the_losses_of_one(
    folder: Path, tmp_path: Path, name: str, settings: dict[str, Any], tolerance: float
) -> None:
    weights, _ = run(tmp_path, settings)
    for two, one in zip(read_rows(folder / name), read_rows(tmp_path), strict=True):
        for metric in ("train_loss", "val_loss"):
            assert two[metric] == pytest.approx(one[metric], rel=tolerance)
        for metric in ("train_acc", "train_acc5", "val_acc", "val_acc5", "val_acc_t"):
            assert two[metric] == pytest.approx(one[metric], abs=0.01)
        for metric in ("learning_rate", "image_steps", "parameters"):
            assert two[metric] == one[metric]
    for key, value in weights_in(folder / name).items():
        torch.testing.assert_close(value, weights[key], rtol=1e-2, atol=1e-3)


def test_a_worker_short_of_memory_repeats_its_step_alone(folder: Path) -> None:
    first = read_rows(folder / "crowded")[0]
    assert first["micro_batch"] == 16  # 64 images of a worker, halved until below 20
    assert len(first["notes"]) == 2


def test_one_worker_asked_to_stop_stops_both_at_the_same_step(folder: Path) -> None:
    reasons = [(folder / f"stopped-{rank}.txt").read_text() for rank in range(2)]
    # The worker was asked in its 14th step or batch: eleven steps, then validation.
    assert reasons[0] == reasons[1] == "stopped after step 11 of epoch 1"


def test_two_workers_resume_bit_for_bit(folder: Path) -> None:
    assert_same(weights_in(folder / "own"), weights_in(folder / "stopped"))
    for name in ("train_loss", "val_loss", "val_acc_t"):
        whole, resumed = ([row[name] for row in read_rows(folder / job)] for job in ("own", "stopped"))
        assert whole == resumed
