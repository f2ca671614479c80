import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from tests.trainable.sessions import DyingSession, Killed, run
from trainable import weights_and_biases
from trainable.config import TrainConfig
from trainable.loop import train
from trainable.session import LocalSession
from trainable.tracking import Tracker, read_rows


def offline_records(file: Path) -> Iterator[Any]:
    """Records of an offline run's .wandb file: LevelDB's log format after seven bytes of their own."""
    data, at, record = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        left = 32768 - at % 32768  # blocks of 32 KiB; a header does not cross their ends
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A user who has never logged in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()  # it reads its environment once per process
    yield
    wandb.teardown()


def test_an_offline_run_of_weights_and_biases_reads_back_and_keeps_its_id_over_a_kill(
    tmp_path: Path, small: dict[str, Any], nobody: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "run"
    keys = {"wb_group": "thesis", "wb_run_name": "first", "wb_sweep_id": "abc12345"}
    settings = {**small, "checkpoint_interval": 1, **keys}
    with pytest.raises(Killed):
        train(TrainConfig(**settings), DyingSession(folder, dies_in_report=2))
    train(TrainConfig(**settings), LocalSession(folder, device=torch.device("cpu")))
    wandb.teardown()  # its own process writes the files
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    steps: dict[int, dict[str, float]] = {}
    for file in files:
        records = list(offline_records(file))
        (begun,) = [record.run for record in records if record.HasField("run")][:1]
        assert begun.run_id == (folder / "wandb_id").read_text()
        assert begun.run_group == "thesis"
        assert begun.display_name == "first"
        assert begun.sweep_id == "abc12345"
        for record in records:
            if record.HasField("history"):
                values = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                steps[int(values["_step"])] = values
    rows = read_rows(folder)
    assert [steps[row["epoch"]]["val_loss"] for row in rows] == [row["val_loss"] for row in rows]
    assert steps[3]["train_loss"] == rows[2]["train_loss"]


def test_without_a_login_weights_and_biases_is_off_and_says_so(
    tmp_path: Path, small: dict[str, Any], nobody: None
) -> None:
    assert "not logged in" in str(weights_and_biases.unavailable())
    run(tmp_path / "run", {**small, "epochs": 1, "wb_suppress": False})
    assert not (tmp_path / "run" / "wandb").exists()


def test_a_run_outlives_the_process_of_weights_and_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Dead:
        def log(self, *values: Any, **options: Any) -> None:
            raise ConnectionResetError("Connection lost")

        finish = log

    monkeypatch.setattr(weights_and_biases, "unavailable", lambda: None)
    monkeypatch.setattr(weights_and_biases, "_start", lambda folder, config: Dead())
    with Tracker(tmp_path / "logs", [], {}, wandb=True) as tracker:
        tracker.log({"epoch": 1, "val_acc": 0.5})
        tracker.log({"epoch": 2, "val_acc": 0.5})
    assert [row["epoch"] for row in read_rows(tmp_path / "logs")] == [1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "Weights & Biases is off from here on: Connection lost"
    ]
    with Tracker(tmp_path / "closes", [], {}, wandb=True):
        pass


def test_without_the_package_weights_and_biases_is_off_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    assert "pip install wandb" in str(weights_and_biases.unavailable())


@pytest.mark.parametrize(
    ("keys", "logs"),
    [
        ({}, False),
        ({"wb_group": "thesis"}, True),
        ({"wb_group": "thesis", "wb_suppress": True}, False),
        ({"wb_suppress": False}, True),
    ],
)
def test_weights_and_biases_is_used_when_one_of_its_keys_asks_for_it(
    small: dict[str, Any], keys: dict[str, Any], logs: bool
) -> None:
    assert TrainConfig(**small, **keys).logs_to_wandb is logs


def test_a_torn_last_row_is_left_out_and_written_again_after_a_resume(tmp_path: Path) -> None:
    rows = [{"epoch": n, "val_acc": n / 10} for n in (1, 2)]
    with Tracker(tmp_path, [], {}) as tracker:
        for row in rows:
            tracker.log(row)
    with (tmp_path / "result.json").open("a") as file:
        file.write('{"epoch": 3, "val')
    assert read_rows(tmp_path) == rows
    with Tracker(tmp_path, rows, {}) as tracker:
        tracker.log({"epoch": 3, "val_acc": 0.3})
    assert [row["epoch"] for row in read_rows(tmp_path)] == [1, 2, 3]


def test_a_list_of_numbers_becomes_a_curve_per_entry_in_tensorboard(tmp_path: Path) -> None:
    with Tracker(tmp_path, [], {}) as tracker:
        tracker.log({"epoch": 1, "val_acc_t": [0.25, 0.5], "finished": True})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["val_acc_t/01", "val_acc_t/02"]
    assert events.Scalars("val_acc_t/02")[0].value == 0.5


def test_an_epoch_whose_run_was_killed_before_it_was_drawn_is_drawn_by_the_next_one(tmp_path: Path) -> None:
    rows = [{"epoch": n, "val_acc": n / 4} for n in (1, 2, 3)]
    with Tracker(tmp_path, [], {}) as tracker:
        tracker.log(rows[0])
    with Tracker(tmp_path, rows[:2], {}) as tracker:  # epoch 2 is in the checkpoint alone
        tracker.log(rows[2])
    with Tracker(tmp_path, rows, {}):
        pass
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("val_acc")] == [
        (1, 0.25),
        (2, 0.5),
        (3, 0.75),
    ]
