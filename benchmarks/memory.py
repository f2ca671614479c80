"""Claim: with `recompute` the memory of a training step hardly grows with the number of time steps.

Peak memory of one training step (forward, backward, optimizer) beyond what the process held before it, over
T: the reference of benchmarks/reference.py, our tower, and our tower with `recompute`. On a GPU it is what
torch's allocator handed out; on the CPU it is the resident memory of a process of its own per point (Linux's
VmHWM - VmRSS), so it counts everything, libraries' work space included. `growth` is the peak at the last T
minus that at the first from 4 on, as a percentage of what ours grows by without recompute. Every peak is also
given as a part of the reference's.

    python -m benchmarks.memory                              CPU, gru, T 1 to 16, 2 images: about 3 minutes
    python -m benchmarks.memory --device cuda --batch 64 --cells gru lstm reciprocal hgru fgru
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.training_step import Case, add_arguments, cases, machine, our_step, reference_step
from trainable.atomic import write_json

WAYS = ("reference", "plain", "recompute")
TARGET = 15.0  # percent of the plain growth
MIB = 2**20


def peak(case: Case, way: str) -> float:
    """MiB of memory that one training step takes at its peak; in a process that has done nothing else."""
    torch.manual_seed(0)
    ours = our_step(replace(case, recompute=way == "recompute"))
    step = ours
    if way == "reference":
        step = reference_step(case, ours.model.state_dict(), case.precision)
        del ours
    if step.device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    held = _status("VmRSS")
    step()
    return _status("VmHWM") - held


def _status(key: str) -> float:
    """A size in /proc/self/status, in MiB."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(key))
    return int(line.split()[1]) / 1024


def peak_in_a_process(case: Case, way: str, threads: int) -> float:
    """The same, in a fresh process."""
    point = json.dumps({"case": asdict(case), "way": way, "threads": threads})
    # Freed tensors go back to the system at once, so that the peak is of memory in use.
    environment = {
        **os.environ,
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    command = [sys.executable, "-m", "benchmarks.memory", "--point", point]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def growth(peaks: dict[int, float]) -> float:
    """MiB by which the peak grows from the first T of at least 4 to the last."""
    steps = sorted(t for t in peaks if t >= 4) or sorted(peaks)
    return peaks[steps[-1]] - peaks[steps[0]]


def table(results: list[dict[str, Any]], steps: list[int]) -> Table:
    """A row per cell and way."""
    grid = Table(title="peak memory of a training step, MiB")
    for column in (
        "cell",
        "way",
        *(f"T={t} (of ref.)" for t in steps),
        "growth",
        "% of plain",
        f"target {TARGET:.0f} %",
    ):
        grid.add_column(column, justify="left" if column in ("cell", "way") else "right")
    for row in results:
        percent = row["growth_percent_of_plain"]
        met = ("met" if percent < TARGET else "NOT MET") if row["way"] == "recompute" else ""
        sizes = [f"{row['peak_mib'][t]:,.0f} ({row['ratio_to_reference'][t]:.2f})" for t in steps]
        grid.add_row(row["cell"], row["way"], *sizes, f"{row['growth_mib']:,.0f}", f"{percent:.0f}", met)
    return grid


def main() -> int:
    """Measure every cell over every T."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, ["gru"], [1, 4, 8, 16])
    parser.set_defaults(batch=2)
    parser.add_argument(
        "--point", help=argparse.SUPPRESS
    )  # one measurement, asked for by this program itself
    args = parser.parse_args()
    if args.point:
        point = json.loads(args.point)
        torch.set_num_threads(point["threads"])
        print(peak(Case(**point["case"]), point["way"]))
        return 0

    console, results = Console(), []
    for cell in args.cells:
        args.cells = [cell]
        rows = {
            way: {c.time_steps: peak_in_a_process(c, way, args.threads) for c in cases(args)} for way in WAYS
        }
        for way, peaks in rows.items():
            percent = 100 * growth(peaks) / growth(rows["plain"]) if growth(rows["plain"]) else float("nan")
            results.append(
                {
                    "cell": cell,
                    "way": way,
                    "peak_mib": peaks,
                    "ratio_to_reference": {t: peaks[t] / rows["reference"][t] for t in peaks},
                    "growth_mib": growth(peaks),
                    "growth_percent_of_plain": percent,
                }
            )
    console.print(table(results, args.time_steps))
    console.print(machine(args.device), highlight=False)
    if args.json:
        write_json(args.json, {"machine": machine(args.device), "results": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
