"""What a command prints while its workers train, read from the run's folder."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT
from trainable.metrics import NOTES
from trainable.progress import EpochLines
from trainable.say import say
from trainable.tracking import RESULT_FILE


def row(epoch: int, **more: Any) -> dict[str, Any]:
    zeros = dict.fromkeys(("val_loss", "train_loss", "learning_rate", "images_per_second", "seconds"), 0.0)
    return {"epoch": epoch, "val_acc": epoch / 10, **zeros, **more}


def write_rows(folder: Path, *rows: dict[str, Any]) -> None:
    (folder / RESULT_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_row_says_to_the_user_is_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EpochLines(tmp_path, 2):
        write_rows(tmp_path, row(1, **{NOTES: ["out of memory in step 3", "another"]}), row(2))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "out of memory in step 3",
        "another",
        "epoch 1/2",
        "epoch 2/2",
    ]


def test_epochs_trained_again_after_a_kill_are_printed_and_those_before_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.StringIO()
    monkeypatch.setattr(sys, "stdout", printed)
    write_rows(tmp_path, row(1), row(2), row(3))
    with EpochLines(tmp_path, 4) as lines:
        write_rows(tmp_path, row(1))  # its checkpoint was of epoch 1
        wait_for(lambda: lines._printed == 1)
        write_rows(tmp_path, row(1), row(2))
        wait_for(lambda: "epoch 2/4" in printed.getvalue())
    assert "epoch 1/4" not in printed.getvalue()


def test_a_pipe_that_is_gone_is_no_reason_to_fail() -> None:
    code = "from trainable.say import say; import sys; say('a'); say('b'); say('c', sys.stderr)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"input(); {code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stderr.read() == "c\n"
    assert process.wait() == 0


def test_a_line_goes_where_it_is_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    say("done")
    say("wrong", sys.stderr)
    assert capsys.readouterr() == ("done\n", "wrong\n")
