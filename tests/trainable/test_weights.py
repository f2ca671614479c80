import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models import build_model
from tests.trainable.sessions import run
from trainable import preflight
from trainable.config import TrainConfig
from trainable.errors import ConfigError
from trainable.loop import WEIGHTS_FILE
from trainable.weights import WeightsError, check_fit, export_weights, load_weights, read_weights

STORED = Path(__file__).parent / "stored_checkpoint" / "epoch_0002.pt"


def network(**changes: Any) -> torch.nn.Module:
    config = torch.load(STORED, weights_only=True)["config"]
    torch.manual_seed(1)
    return build_model({**config, **changes}, 10)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_removed(tmp_path: Path, prefix: str) -> None:
    weights = network().state_dict()
    torch.save({prefix + name: value for name, value in weights.items()}, tmp_path / "a.weights")
    assert read_weights(tmp_path / "a.weights").keys() == weights.keys()


def test_a_checkpoint_is_taken_for_the_weights_in_it() -> None:
    model = network()
    load_weights(model, STORED)
    assert model.state_dict()["last_conv.bias"].sum().item() == pytest.approx(0.28214457)


def test_what_is_exported_is_a_plain_state_dict_with_a_description_beside_it(tmp_path: Path) -> None:
    model = network()
    path = tmp_path / "model.weights"
    export_weights(path, model.state_dict(), {"config": {"cell_type": "rnn"}})
    content = torch.load(path, weights_only=True)
    assert list(content) == list(model.state_dict())
    network().load_state_dict(content, strict=True)
    assert json.loads((tmp_path / "model.weights.json").read_text()) == {"config": {"cell_type": "rnn"}}


def test_what_does_not_fit_is_listed_by_kind(tmp_path: Path) -> None:
    weights = network().state_dict()
    del weights["last_conv.bias"]
    weights["extra.weight"] = torch.zeros(2)
    weights["last_conv.weight"] = torch.zeros(1000, 3, 3, 3)
    with torch.device("meta"), pytest.raises(WeightsError) as error:
        check_fit(network(), weights, tmp_path / "old.weights")
    message = str(error.value)
    assert "missing: last_conv.bias" in message
    assert "unexpected: extra.weight" in message
    assert "last_conv.weight is (1000, 3, 3, 3) there and (10, 3, 3, 3) here" in message


@pytest.mark.parametrize("kind", ["missing", "noise", "empty", "torn", "objects", "no state_dict"])
def test_a_file_that_holds_no_weights_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.weights"
    messages = {
        "missing": "no such file",
        "noise": "damaged, or no file of torch.save",
        "empty": "damaged, or no file of torch.save",
        "torn": "damaged, or no file of torch.save",
        "objects": "holds a argparse.Namespace, and only tensors are loaded",
        "no state_dict": "holds no state_dict",
    }
    if kind == "noise":
        path.write_bytes(b"hello, this is not a weights file")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "torn":
        path.write_bytes(STORED.read_bytes()[:-700])
    elif kind == "objects":
        torch.save({"model": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=1)}, path)
    elif kind == "no state_dict":
        torch.save([torch.ones(2)], path)
    with pytest.raises(WeightsError, match=messages[kind]) as error:
        read_weights(path)
    assert "\n" not in str(error.value)


def test_weights_that_do_not_fit_are_found_before_any_compute(tmp_path: Path, small: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"run.json: init: .*epoch_0002.pt: does not fit.*other shape"):
        preflight.check(TrainConfig(**small, init=str(STORED)), "run.json")


def test_a_run_starts_from_the_weights_it_is_given(tmp_path: Path, small: dict[str, Any]) -> None:
    # A step of 1e-12 changes nothing that shows: what comes out is what went in, not the seed's weights.
    settings = {**small, "filters": [2, 3], "epochs": 1, "learning_rate": 1e-12, "init": str(STORED)}
    weights, session = run(tmp_path / "run", settings)
    for name, value in read_weights(STORED).items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-9)
    assert session.reports[0]["val_acc"] == pytest.approx(0.5376044568245125)
    about = json.loads((tmp_path / "run" / f"{WEIGHTS_FILE}.json").read_text())
    assert {"config", "preprocessing", "class_names", "metrics", "versions"} <= about.keys()
    assert about["config"]["init"] == str(STORED)
