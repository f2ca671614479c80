"""What is wrong with a run is found before any compute is spent; for its messages see test_run_train.py."""

import json
import subprocess
import sys

import pytest

from tests.commands import ROOT, SMALL

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
