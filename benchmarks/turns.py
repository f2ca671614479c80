"""Two training steps timed in turns, each in a process of its own.

In one process they would share an allocator: what one frees is what the other gets, cheaper or dearer than
alone, and on a CPU that moved the ratio by up to 15 % either way.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.training_step import Case, our_step, reference_step
from trainable.allocator import freed_memory_kept

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
_QUIET_S = 0.3  # OpenMP's threads look for work this long after a step


class Side:
    """One side's step, in its process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def seconds(self) -> float:
        """Take one step."""
        time.sleep(_QUIET_S)
        return float(self._ask("seconds"))

    def convolution_share(self) -> float:
        """The part of a step's time, 0 to 1, that its convolutions take on a CPU, forward and backward."""
        return float(self._ask("convolution_share"))

    def _ask(self, what: str) -> Any:
        self._connection.send(what)
        return self._connection.recv()


@contextmanager
def side(
    case: Case,
    precision: str | None,
    weights: dict[str, torch.Tensor],
    threads: int,
    clock: str,
    keeps_memory: bool = False,
) -> Iterator[Side]:
    """A step in a new process that has taken it once already, for what only the first one allocates.

    Args:
        case: Whose step.
        precision: The reference's; None for our step, as training runs it.
        weights: The reference's.
        threads: Of the CPU.
        clock: Key of CLOCKS.
        keeps_memory: Keep freed memory in the process, as our training loop does on a CPU.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=_serve, args=(there, case, precision, weights, threads, clock, keeps_memory), daemon=True
    )
    process.start()
    there.close()
    try:
        here.recv()
        yield Side(here)
    finally:
        here.close()
        process.join()


def _serve(
    connection: Connection,
    case: Case,
    precision: str | None,
    weights: dict[str, torch.Tensor],
    threads: int,
    clock: str,
    keeps_memory: bool,
) -> None:
    torch.set_num_threads(threads)
    step = our_step(case) if precision is None else reference_step(case, weights, precision)
    now = CLOCKS[clock]

    def seconds() -> float:
        step.wait()
        start = now()
        step()
        step.wait()
        return now() - start

    def convolution_share() -> float:
        with profile(activities=[ProfilerActivity.CPU]) as record:
            step()
        times = {event.key: event.self_cpu_time_total for event in record.key_averages()}
        return sum(time for name, time in times.items() if "conv" in name) / sum(times.values())

    answers = {"seconds": seconds, "convolution_share": convolution_share}
    with freed_memory_kept() if keeps_memory else nullcontext():
        connection.send(seconds())
        while True:
            try:
                connection.send(answers[connection.recv()]())
            except EOFError:
                return
