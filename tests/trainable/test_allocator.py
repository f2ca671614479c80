"""Pages of freed memory, counted by the system in processes of their own."""

import json
import os
import subprocess
import sys

PROGRAM = """
import gc, json, resource, sys, threading
from contextlib import nullcontext
import torch
from trainable.allocator import freed_memory_kept

def resident():  # MiB
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20

def step():
    maps = [torch.ones(3_000_000) for _ in range(20)]

def steps():
    step()
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    figures["faults"] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

figures = {}
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
PAGES = 20 * 3_000_000 * 4 / 4096


def _measure(way: str, where: str, **environment: str) -> dict[str, float]:
    command = [sys.executable, "-c", PROGRAM, way, where]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def test_a_step_gets_the_memory_of_the_one_before() -> None:
    for where in ("main", "thread"):
        assert _measure("freed", where)["faults"] > PAGES / 4
        assert _measure("kept", where)["faults"] < PAGES / 100


def test_all_is_given_back_at_the_end() -> None:
    for where in ("main", "thread"):
        figures = _measure("kept", where)
        assert figures["inside"] > 200
        assert figures["after"] < figures["inside"] / 3


def test_settings_of_the_user_s_own_are_left_alone() -> None:
    figures = _measure("kept", "main", MALLOC_TRIM_THRESHOLD_="65536", MALLOC_MMAP_THRESHOLD_="65536")
    assert figures["faults"] > PAGES / 4
