"""Pages of freed memory, counted by the system in processes of their own."""

import json
import os
import subprocess
import sys

MAIN = [12_000_000, 24_000_000] * 2  # above the 32 MiB that the C library may keep by itself
THREAD = [9_000_000] * 8  # and below the 64 MiB of a heap of a thread

PROGRAM = """
import gc, json, resource, sys, threading
from contextlib import nullcontext
import torch
from trainable.allocator import freed_memory_kept

def resident():  # MiB
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20

def step():
    maps = [torch.ones(size) for size in SIZES]

def steps():
    for _ in range(6):  # free blocks have to find their places
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    figures["faults"] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

figures, SIZES = {}, [int(size) for size in sys.argv[3:]]
torch.set_num_threads(1)
torch.ones(10).sum()
start = resident()
with freed_memory_kept() if sys.argv[1] == "kept" else nullcontext():
    if sys.argv[2] == "thread":
        worker = threading.Thread(target=steps)
        worker.start()
        worker.join()
    else:
        steps()
    figures["inside"] = resident() - start
figures["after"] = resident() - start
print(json.dumps(figures))
"""
PAGES = {where: 4 * sum(sizes) / 4096 for where, sizes in (("main", MAIN), ("thread", THREAD))}


def _measure(way: str, where: str, program: str = PROGRAM, **environment: str) -> dict[str, float]:
    command = [sys.executable, "-c", program, way, where, *map(str, MAIN if where == "main" else THREAD)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def test_a_step_gets_the_memory_of_the_one_before() -> None:
    for where in ("main", "thread"):
        assert _measure("freed", where)["faults"] > PAGES[where] / 4
        assert _measure("kept", where)["faults"] < PAGES[where] / 10


def test_all_is_given_back_at_the_end() -> None:
    for where in ("main", "thread"):
        figures = _measure("kept", where)
        assert figures["inside"] > 200
        assert figures["after"] < figures["inside"] / 3


def test_where_addresses_are_limited_all_is_given_back_at_once() -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))\n"
    assert _measure("kept", "thread", limit + PROGRAM)["faults"] > PAGES["thread"] / 4


def test_settings_of_the_user_s_own_are_left_alone() -> None:
    figures = _measure("kept", "main", MALLOC_TRIM_THRESHOLD_="65536", MALLOC_MMAP_THRESHOLD_="65536")
    assert figures["faults"] > PAGES["main"] / 4
