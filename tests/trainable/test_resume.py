"""A run killed or stopped anywhere ends like one that was left alone."""

from pathlib import Path
from typing import Any

import pytest

from tests.trainable.sessions import (
    DyingSession,
    Killed,
    Weights,
    assert_same,
    run,
    without_times,
)
from trainable.checkpoint import CheckpointStore
from trainable.config import TrainConfig
from trainable.loop import train
from trainable.session import Interrupted
from trainable.tracking import read_rows

# 11 steps and 3 batches of validation an epoch, 3 more at twice the time steps in the last one. Every part
# with a memory of its own is on.
STEPS, BATCHES = 11, 3
EVERYTHING: dict[str, Any] = {
    "epochs": 3,
    "cell_type": "gru",
    "normalization": "batchnorm",
    "optimizer": "adamw",
    "weight_decay": 0.1,
    "lr_scheduler": "cosine",
    "warmup_epochs": 1.5,
    "ema_decay": 0.9,
    "mixup": 0.2,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "dropout": 0.2,
    "batch_max": 50,
    "time_loss": "linear",
    "do_gradient_clipping": True,
    "checkpoint_interval": 1,
    "checkpoint_every_steps": 4,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, list[dict[str, Any]], dict[str, Any]]:
    """An uninterrupted run: weights, rows, settings."""
    from tests.commands import SMALL

    settings = {**SMALL, **EVERYTHING}
    folder = tmp_path_factory.mktemp("whole")
    weights, _ = run(folder, settings)
    return weights, without_times(read_rows(folder)), settings


@pytest.mark.parametrize("dies", [2, 5, 9, 11, 12, 14, 15, 17, 20, 25, 28, 30, 36, 39, 41, 42])
def test_a_run_killed_after_any_step_ends_with_the_same_weights_and_rows(
    tmp_path: Path, whole: tuple[Weights, list[dict[str, Any]], dict[str, Any]], dies: int
) -> None:
    weights, rows, settings = whole
    with pytest.raises(Killed):
        train(TrainConfig(**settings), DyingSession(tmp_path, dies=dies))
    resumed, _ = run(tmp_path, settings)
    assert_same(weights, resumed)
    assert without_times(read_rows(tmp_path)) == rows


@pytest.mark.parametrize("stops", [1, 7, 11, 12, 14, 15, 42, 43, 45])
def test_a_run_asked_to_stop_saves_that_very_step_and_goes_on_from_it(
    tmp_path: Path, whole: tuple[Weights, list[dict[str, Any]], dict[str, Any]], stops: int
) -> None:
    weights, rows, settings = whole
    with pytest.raises(Interrupted):
        train(TrainConfig(**settings), DyingSession(tmp_path, stops=stops))
    content = CheckpointStore(tmp_path / "checkpoints").load_latest()
    assert content is not None
    epoch = min((stops - 1) // (STEPS + BATCHES), 2)
    assert content["position"] == [epoch, min(stops - epoch * (STEPS + BATCHES), STEPS)]
    resumed, _ = run(tmp_path, settings)
    assert_same(weights, resumed)
    assert without_times(read_rows(tmp_path)) == rows


def test_a_run_stopped_again_and_again_gets_to_the_same_end(
    tmp_path: Path, whole: tuple[Weights, list[dict[str, Any]], dict[str, Any]]
) -> None:
    weights, rows, settings = whole
    starts = 0
    while True:
        starts += 1
        try:
            train(TrainConfig(**settings), DyingSession(tmp_path, stops=7))
            break
        except Interrupted:
            assert starts < 20
    resumed, _ = run(tmp_path, settings)
    assert starts > 4
    assert_same(weights, resumed)
    assert without_times(read_rows(tmp_path)) == rows


@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_a_run_killed_in_a_report_repeats_no_epoch_in_its_rows(
    tmp_path: Path, whole: tuple[Weights, list[dict[str, Any]], dict[str, Any]], dies_at: int
) -> None:
    weights, rows, settings = whole
    with pytest.raises(Killed):
        train(TrainConfig(**settings), DyingSession(tmp_path, dies_in_report=dies_at))
    resumed, session = run(tmp_path, settings)
    assert_same(weights, resumed)
    assert without_times(read_rows(tmp_path)) == rows
    assert session.reports[0]["epoch"] == dies_at  # told once more: nobody may have heard it
    assert session.reports[-1]["finished"] is True


def test_checkpoints_come_at_the_steps_asked_for(tmp_path: Path, small: dict[str, Any]) -> None:
    settings = {**small, "epochs": 1, "checkpoint_every_steps": 4, "keep_checkpoints": 5}
    run(tmp_path, settings)
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.pt"))
    assert names == [
        "epoch_0000_step_000004.pt",
        "epoch_0000_step_000008.pt",
        "epoch_0001.pt",
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"optimizer": "sgd"}, {"optimizer": "adam"}),
        ({"weight_decay": 0.1}, {"weight_decay": 0.1, "decay_all": True}),
        ({"optimizer": "rms", "momentum": 0.0}, {"optimizer": "rms", "momentum": 0.9}),
        ({}, {"ema_decay": 0.9}),
        ({"ema_decay": 0.9}, {}),
        ({}, {"precision": "fp16"}),
        ({"precision": "fp16"}, {}),
        ({"checkpoint_every_steps": 10}, {"batch_size": 512}),  # fewer steps an epoch than were done
    ],
)
def test_a_run_goes_on_under_other_settings_of_its_optimization(
    tmp_path: Path, small: dict[str, Any], before: dict[str, Any], after: dict[str, Any]
) -> None:
    first = {**small, "epochs": 2, "checkpoint_interval": 1, **before}
    with pytest.raises(Killed):
        train(TrainConfig(**first), DyingSession(tmp_path, dies=STEPS + BATCHES + STEPS))
    _, session = run(tmp_path, {**small, "epochs": 2, **after})
    last = session.reports[-1]
    assert last["epoch"] == 2
    assert last["val_acc"] > 0.3


def test_a_smaller_batch_max_holds_for_a_run_that_goes_on(tmp_path: Path, small: dict[str, Any]) -> None:
    settings = {**small, "epochs": 2, "checkpoint_interval": 1}
    with pytest.raises(Killed):
        train(TrainConfig(**settings), DyingSession(tmp_path, dies_in_report=1))
    _, session = run(tmp_path, {**settings, "batch_max": 32})
    assert [row["micro_batch"] for row in session.reports] == [128, 32]


def test_a_damaged_checkpoint_is_told_in_the_row_of_the_epoch_it_cost(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    settings = {**small, "checkpoint_interval": 1}
    with pytest.raises(Killed):
        train(TrainConfig(**settings), DyingSession(tmp_path, dies_in_report=2))
    path = CheckpointStore(tmp_path / "checkpoints").path((2, 0))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="damaged"):
        _, session = run(tmp_path, settings)
    told = {row["epoch"]: row.get("notes", []) for row in session.reports}
    assert [len(notes) for notes in told.values()] == [0, 1, 0]
    assert f"checkpoint {path} is damaged" in told[2][0]


def test_a_run_whose_checkpoints_are_all_damaged_says_that_it_starts_over(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    settings = {**small, "checkpoint_interval": 1, "epochs": 2}
    with pytest.raises(Killed):
        train(TrainConfig(**settings), DyingSession(tmp_path, dies_in_report=1))
    CheckpointStore(tmp_path / "checkpoints").path((1, 0)).write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        _, session = run(tmp_path, settings)
    assert [row["epoch"] for row in session.reports] == [1, 2]
    assert (
        session.reports[0]["notes"][-1] == f"no checkpoint in {tmp_path}/checkpoints is intact; starting over"
    )
