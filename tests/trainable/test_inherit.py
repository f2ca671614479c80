"""A run goes on from another's checkpoint: once, with its own rows, from a folder or from a bucket."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainable.checkpoint import CheckpointStore
from trainable.config import TrainConfig
from trainable.inherit import inherit
from trainable.mirror import Mirror
from trainable.remote import Remote

EPOCH = 4


def write_run(folder: Path, weight: float) -> CheckpointStore:
    """A run that has completed four epochs, with one weight."""
    rows = [{"epoch": epoch, "val_acc": weight} for epoch in range(1, EPOCH + 1)]
    with CheckpointStore(folder / "checkpoints") as store:
        store.save(
            (EPOCH, 0), {"position": [EPOCH, 0], "model": {"w": torch.tensor([weight])}, "history": rows}
        )
    (folder / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return store


@pytest.fixture
def config(small: dict[str, Any]) -> TrainConfig:
    return TrainConfig(**{**small, "learning_rate": 0.5})


@pytest.fixture(params=["folder", "remote"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    write_run(tmp_path / "source", 2.0)
    if request.param == "folder":
        return {"folder": str(tmp_path / "source")}
    remote = Remote(request.getfixturevalue("bucket"))
    Mirror(tmp_path / "source", remote).push(lambda name: True)
    return {"remote": remote.uri}


def test_weights_are_the_sources_and_rows_and_settings_the_runs_own(
    tmp_path: Path, config: TrainConfig, source: dict[str, Any]
) -> None:
    own = write_run(tmp_path / "own", 1.0)
    inherit(tmp_path / "own", config, source, EPOCH, "source@4")
    content = own.load_latest()
    assert content is not None
    assert content["model"]["w"].item() == 2.0
    assert [row["val_acc"] for row in content["history"]] == [1.0] * EPOCH
    assert content["config"]["learning_rate"] == 0.5


def test_the_same_mark_is_taken_over_once(tmp_path: Path, config: TrainConfig) -> None:
    source = {"folder": str(tmp_path / "source")}
    own = write_run(tmp_path / "own", 1.0)
    for weight, mark, expected in ((2.0, "a@4", 2.0), (3.0, "a@4", 2.0), (3.0, "b@4", 3.0)):
        write_run(tmp_path / "source", weight)
        inherit(tmp_path / "own", config, source, EPOCH, mark)
        content = own.load_latest()
        assert content is not None
        assert content["model"]["w"].item() == expected


def test_a_run_that_has_gone_on_is_left_alone(tmp_path: Path, config: TrainConfig) -> None:
    write_run(tmp_path / "source", 2.0)
    own = write_run(tmp_path / "own", 1.0)
    with own:
        own.save((EPOCH, 7), {"position": [EPOCH, 7], "model": {"w": torch.tensor([1.5])}, "history": []})
    inherit(tmp_path / "own", config, {"folder": str(tmp_path / "source")}, EPOCH, "source@4")
    assert own.load((EPOCH, 0))["model"]["w"].item() == 1.0


def test_a_damaged_source_leaves_the_runs_own_weights_with_a_warning(
    tmp_path: Path, config: TrainConfig
) -> None:
    store = write_run(tmp_path / "source", 2.0)
    with store.path((EPOCH, 0)).open("rb+") as file:
        file.truncate(100)
    own = write_run(tmp_path / "own", 1.0)
    with pytest.warns(UserWarning, match="checkpoint of source@4 is damaged"):
        inherit(tmp_path / "own", config, {"folder": str(tmp_path / "source")}, EPOCH, "source@4")
    content = own.load_latest()
    assert content is not None
    assert content["model"]["w"].item() == 1.0
