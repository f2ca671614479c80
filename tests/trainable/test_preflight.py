"""What is wrong with a run is found before any compute is spent; for its messages see test_run_train.py."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT, SMALL
from tests.trainable.sessions import DyingSession, Killed, run
from trainable.config import TrainConfig
from trainable.errors import ConfigError
from trainable.loop import train
from trainable.preflight import check, check_forced
from trainable.run_folder import claimed
from trainable.run_place import RunPlace

CHECK = """
import json, sys
from trainable.config import TrainConfig
from trainable.preflight import check
print(check(TrainConfig(**json.loads(sys.argv[1])), "run.json").num_train)
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""


@pytest.mark.parametrize("cell_type", ["rnn", "lstm"])
def test_the_check_does_not_import_torchs_compiler_which_takes_seconds(cell_type: str) -> None:
    command = [sys.executable, "-c", CHECK, json.dumps({**SMALL, "cell_type": cell_type})]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["1438", "[]"], done.stderr


def test_a_run_is_forced_to_go_on_only_where_it_can(tmp_path: Path, small: dict[str, Any]) -> None:
    settings = {**small, "checkpoint_interval": 1}
    with claimed(TrainConfig(**settings), tmp_path, fresh=False), pytest.raises(Killed):
        train(TrainConfig(**settings), DyingSession(tmp_path, dies_in_report=1))
    info = check(TrainConfig(**settings), "run.json")
    check_forced(TrainConfig(**{**settings, "optimizer": "sgd"}), RunPlace(tmp_path), info)
    wider = TrainConfig(**{**settings, "filters": [4, 9]})
    with pytest.raises(
        ConfigError, match=r"--force: .*filters: \[4, 8\] -> \[4, 9\].*does not fit the network"
    ) as e:
        check_forced(wider, RunPlace(tmp_path), info)
    assert len(e.value.problems) == 1
    run(tmp_path, settings)
    check_forced(TrainConfig(**settings), RunPlace(tmp_path), info)
    longer = TrainConfig(**{**settings, "epochs": 9})
    with pytest.raises(ConfigError, match=r"--force: .*\(epochs: 3 -> 9\) that has ended.*--fresh"):
        check_forced(longer, RunPlace(tmp_path), info)
