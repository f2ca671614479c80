"""Signals at a command and at a worker, each in a process of its own that gets real ones."""

import signal
import subprocess
import sys

import pytest

from tests.commands import ROOT

COMMAND = """
import threading
from trainable import signals
asked, go_on = threading.Event(), threading.Event()

def task():
    print("started", flush=True)
    asked.wait()
    go_on.wait(20)

def on_stop(name):
    print("asked", name, flush=True)
    asked.set()
    threading.Timer(1.0, go_on.set).start()

signals.run_stoppable(task, on_stop)
print("saved", flush=True)
"""

WORKER = """
import sys, time
from pathlib import Path
from trainable import signals
signals._AGAIN_SECONDS = float(sys.argv[1])
signals.install()
watch = signals.StopWatch(Path("/nowhere"))
print("started", flush=True)
while not watch.requested():
    time.sleep(0.01)
print("asked", flush=True)
time.sleep(1)
print("saved", flush=True)
"""


def start(code: str, *arguments: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "started\n"
    return process


def next_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_signals_after_the_first_do_not_end_a_command_that_saves() -> None:
    process = start(COMMAND)
    process.send_signal(signal.SIGUSR1)
    assert next_line(process) == "asked SIGUSR1"
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
        process.send_signal(number)
    assert next_line(process) == "saved"
    assert process.wait(20) == 0


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_command_that_saves(first: signal.Signals) -> None:
    process = start(COMMAND)
    process.send_signal(first)
    assert next_line(process) == f"asked {first.name}"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert next_line(process) == ""


@pytest.mark.parametrize(("again", "line", "code"), [("10", "saved", 0), ("0", "", -signal.SIGTERM)])
def test_a_second_sigterm_ends_a_worker_only_long_after_the_first(again: str, line: str, code: int) -> None:
    process = start(WORKER, again)
    process.send_signal(signal.SIGTERM)
    assert next_line(process) == "asked"
    process.send_signal(signal.SIGTERM)
    assert next_line(process) == line
    assert process.wait(20) == code
