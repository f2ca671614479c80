"""Claim: a training step on a CPU is faster where its process keeps the memory that the step before freed.

Measures our step with trainable.allocator.freed_memory_kept and without, each in a process of its own, in
turns; both compute the same numbers.

    python -m benchmarks.allocator                        hgru and gru, T = 3: about 3 minutes on 2 cores
"""

from __future__ import annotations

import argparse
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.training_step import add_arguments, cases, machine
from benchmarks.turns import side


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, ["hgru", "gru"], [3])
    parser.set_defaults(channels_last=True)
    parser.add_argument("--repeats", type=int, default=9, help="timed steps of each side (default: 9)")
    args = parser.parse_args()
    if args.device != "cpu":
        parser.error("only a CPU's memory is the C library's; a GPU has an allocator of its own")

    grid = Table(title="training step, median seconds")
    for column in ("cell", "T", "freed", "kept", "ratio"):
        grid.add_column(column, justify="left" if column == "cell" else "right")
    for case in cases(args):
        seconds: dict[str, list[float]] = {"freed": [], "kept": []}
        with (
            side(case, None, {}, args.threads, "wall") as freed,
            side(case, None, {}, args.threads, "wall", keeps_memory=True) as kept,
        ):
            for _ in range(args.repeats):
                seconds["freed"].append(freed.seconds())
                seconds["kept"].append(kept.seconds())
        plain, ours = median(seconds["freed"]), median(seconds["kept"])
        grid.add_row(
            case.cell_type, str(case.time_steps), f"{plain:.3f}", f"{ours:.3f}", f"{plain / ours:.2f}"
        )
    console = Console()
    console.print(grid)
    console.print(machine(args.device), highlight=False)


if __name__ == "__main__":
    main()
