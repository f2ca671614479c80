"""Asking a run to stop: a signal becomes a checkpoint and exit code 130, not a loss.

SIGTERM and SIGUSR1 (a scheduler's time limit, a spot instance taken back) and Ctrl-C may reach the command or
a worker. The command tells its workers through a file in the run's folder, which all of them see; a worker
that gets the signal itself keeps it as a flag. The training loop asks after every step.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

STOP_FILE = "stop"
_TIMELY = (signal.SIGTERM, signal.SIGUSR1)
_AGAIN_SECONDS = 10.0  # within which a second SIGTERM is the same wish
_POLL_SECONDS = 0.5  # between two looks at the file: nothing against a step, little against a time limit


# The worker's side.

_flag = threading.Event()


def install() -> None:
    """Let SIGTERM and SIGUSR1 set this process' flag; a SIGTERM long after does what the first did before.

    Call it in the main thread of a worker process.
    """
    before = signal.getsignal(signal.SIGTERM)
    first = 0.0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if not _flag.is_set():
            first = now
        elif number == signal.SIGTERM and now - first > _AGAIN_SECONDS:
            signal.signal(signal.SIGTERM, before)
            os.kill(os.getpid(), signal.SIGTERM)
        _flag.set()

    _flag.clear()
    for number in _TIMELY:
        signal.signal(number, handle)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TIMELY)  # see `held_back`


class StopWatch:
    """Answers after every step whether the run was asked to stop."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: Folder of the run."""
        self._file = folder / STOP_FILE
        self._next_look = 0.0
        self._seen = False

    def requested(self) -> bool:
        """Whether this process got a signal, or the command left its stop file."""
        if _flag.is_set():
            return True
        now = time.monotonic()
        if not self._seen and now >= self._next_look:
            self._next_look = now + _POLL_SECONDS
            self._seen = self._file.exists()
        return self._seen


# The command's side.


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Processes started within the block don't get SIGTERM and SIGUSR1, nor do their children.

    A scheduler sends its signal to every process of a job. Ray's own would end at once and take the
    workers with them, before these could save; they end with this process in any case.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TIMELY)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def as_interrupts() -> Iterator[None]:
    """Within the block SIGTERM and SIGUSR1 end the command as Ctrl-C does."""

    def handle(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling(_TIMELY, handle):
        yield


def run_stoppable(task: Callable[[], None], on_stop: Callable[[str], None]) -> None:
    """Run `task` in a thread of its own and wait for it; its exception is raised here.

    Args:
        task: What runs; it should end soon after `on_stop` was called.
        on_stop: Called once, with the signal's name. A second Ctrl-C ends the process at once, with 130; a
            second SIGTERM or SIGUSR1 does not: schedulers send both, or one to a process and to its group.
    """
    errors: list[BaseException] = []
    asked = False

    def run() -> None:
        try:
            task()
        except BaseException as error:
            errors.append(error)

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked:
            if number == signal.SIGINT:
                os._exit(130)
            return
        asked = True
        on_stop(signal.Signals(number).name)

    thread = threading.Thread(target=run, name="training", daemon=True)
    with _handling((*_TIMELY, signal.SIGINT), handle):
        thread.start()
        while thread.is_alive():
            thread.join(0.2)  # a join without end would keep the handlers from running
    if errors:
        raise errors[0]


@contextlib.contextmanager
def _handling(
    numbers: tuple[signal.Signals, ...], handle: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals; whoever called from another one does
        return
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
