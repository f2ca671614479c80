"""How tests start the project's two commands, kill them and wait for them."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

SMALL = {
    "dataset": "digits",
    "cell_type": "rnn",
    "skip_first": True,
    "filters": [4, 8],
    "pools": [True, True],
    "first_kernel": 3,
    "first_stride": 2,
    "batch_size": 128,
    "epochs": 3,
    "learning_rate": 0.01,
    "time_steps": 2,
    "normalization": "layernorm",
    "dropout": 0.1,
}


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL a command and every process it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def finish(process: subprocess.Popen[str], code: int = 0, timeout: float = 200) -> str:
    """Wait for a command, check its exit code, return what it printed."""
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == code, output
    return output


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], timeout: float = 120) -> None:
    """Wait until `condition` holds while the command still runs."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


def write(path: Path, content: Any) -> Path:
    """Write JSON, which is YAML too."""
    path.write_text(json.dumps(content))
    return path
