"""How tests start the project's two commands, kill them and wait for them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

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


class Command(subprocess.Popen[str]):
    """One of the two commands, in a session of its own; what it prints can be read while it runs.

    Args:
        folder: Where it runs.
        script: "run_search.py" or "run_train.py".
        arguments: Of the command line.
    """

    def __init__(self, folder: Path, script: str, *arguments: object) -> None:
        handle, name = tempfile.mkstemp(prefix="printed-", suffix=".txt", dir=folder)
        self._printed = Path(name)
        super().__init__(
            [sys.executable, str(ROOT / script), *map(str, arguments)],
            stdout=handle,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            start_new_session=True,
        )
        os.close(handle)

    def printed(self) -> str:
        """What it has printed so far."""
        return self._printed.read_text()

    def finish(self, code: int = 0, timeout: float = 200) -> str:
        """Wait for its end, check the exit code, return what it printed."""
        self.wait(timeout)
        assert self.returncode == code, self.printed()
        return self.printed()

    def wait_for(self, condition: Callable[[], bool], timeout: float = 120) -> None:
        """Wait until `condition` holds while it still runs."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.poll() is None, self.printed()
            assert time.monotonic() < deadline, f"nothing happened in time; printed: {self.printed()}"
            time.sleep(0.02)

    def wait_for_line(self, text: str, timeout: float = 120) -> None:
        """Wait until it has printed `text`."""
        self.wait_for(lambda: text in self.printed(), timeout)

    def end(self) -> None:
        """SIGKILL it and every process it started."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


Start = Callable[..., Command]
"""Starts a command in the test's folder."""


def kill_all(process: Command) -> None:
    """SIGKILL the command, Ray and the trials, all at once, as a machine that goes away."""
    parent = psutil.Process(process.pid)
    for member in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            member.kill()
    process.wait()


def write(path: Path, content: Any) -> Path:
    """Write JSON, which is YAML too."""
    path.write_text(json.dumps(content))
    return path
