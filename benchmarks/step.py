"""Claim: a training step of our towers is faster than the same step done plainly, with the same result.

Measures forward + backward + optimizer step of models/ against benchmarks/reference.py: same machine, same
weights and images, each side in a process of its own, steps of both in turns, medians compared. In the same
run it checks that loss and gradients agree; a ratio without that is worth nothing: the exit code is then 1.

    python -m benchmarks.step                                       CPU, float32: about 15 minutes on 2 cores
    python -m benchmarks.step --cells gru lstm --precision bf16 --baseline fp32 --channels-last
    python -m benchmarks.step --device cuda --batch 64 --precision bf16 --baseline fp32 --channels-last \\
                              --compile step

--baseline same gives the reference our precision; --baseline fp32 leaves it in float32 (on a GPU with
torch's default matmul and cuDNN settings), so that the ratio is what a user of the plain code gains.

On a CPU our side keeps freed memory in its process, as our training does (trainable/allocator.py), and the
reference runs as torch leaves it. --reference-keeps-memory gives it the same: the ratio is then the model's
alone.

--clock cpu counts the processor's seconds in all threads instead of those on the wall: on a machine that
others load too it is the one to trust, best with --threads 1. It says nothing about a GPU.

Agreement is checked in float64 on the first images of the batch (--check-images), where both sides must give
the same gradient to EXACT_TOLERANCE. In the precision that is timed, two orders of summation pick other
winners of a max pooling and other sides of a relu, and each such choice moves the gradient by far more than
rounding does: the plain float32 reference itself is 1e-3 to 3e-3 away from float64 at T = 7, 224 px. So there
ours may be as far from float64 as the reference in the same precision is, times SLACK.

`MAC bound` is the ratio of the multiply-accumulates of both sides' convolutions, forward and backward: what
leaving out work alone can gain. A ratio above it comes from faster convolutions (memory layout, precision).
`conv bound` is the ratio if our step were nothing but its convolutions, as fast as they are: all else that it
computes would take no time.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.training_step import (
    Case,
    Step,
    add_arguments,
    cases,
    machine,
    multiply_accumulates,
    our_step,
    reference_step,
)
from benchmarks.turns import CLOCKS, side
from trainable.atomic import write_json

CELLS = ["rnn", "gru", "lstm", "reciprocal", "hgru", "fgru"]

# Float64: sums in another order, through T steps of forward and backward.
EXACT_TOLERANCE = 1e-9
# Lower precision: ours may be as far from float64 as the reference in that precision is, times this.
SLACK = {"fp32": 3.0, "bf16": 1.5}
# Allowed in float32 whatever the reference does: it may happen to choose as float64 everywhere, and on two
# images a single other choice of a ReLU or a pooling moves the gradient by up to 1e-2 (seen: gru, T = 3).
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 2e-2
CHECK_IMAGES = 2  # float64 convolutions are slow on a CPU


def target(case: Case) -> float | None:
    """The ratio we promise for this case; None where we promise nothing."""
    if (case.size, case.tower_type, case.normalization) != (224, "normal", "layernorm"):
        return None
    if case.device.startswith("cuda"):
        return 5.0 if (case.cell_type, case.time_steps, case.batch) == ("gru", 7, 64) else None
    if case.batch != 8:
        return None
    if case.precision == "bf16":
        promised = case.cell_type in ("gru", "lstm") and case.time_steps == 7 and case.baseline == "fp32"
        return 2.5 if promised and "avx512_bf16" in _cpu_flags() else None
    if case.time_steps == 7:
        return {"gru": 1.5, "lstm": 1.5, "rnn": 1.5, "reciprocal": 1.5, "hgru": 1.2, "fgru": 1.2}.get(
            case.cell_type
        )
    gated = case.cell_type in ("gru", "lstm", "reciprocal", "hgru", "fgru")
    return 1.5 if gated and case.time_steps == 3 else None


def measure(
    case: Case,
    repeats: int,
    clock: str = "wall",
    check_images: int = CHECK_IMAGES,
    reference_keeps: bool = False,
) -> dict[str, Any]:
    """Check and time one case; images per second follow from the median of `repeats` steps."""
    result, weights = check(case, check_images)
    result["macs_per_image"] = counts = multiply_accumulates(case)
    result["mac_bound"] = counts["reference"] / counts["ours"]

    seconds: dict[str, list[float]] = {"reference": [], "ours": []}
    precision, threads = case.precision if case.baseline == "same" else "fp32", torch.get_num_threads()
    with (
        side(case, precision, weights, threads, clock, keeps_memory=reference_keeps) as plain,
        side(case, None, weights, threads, clock, keeps_memory=case.device == "cpu") as mine,
    ):
        for _ in range(repeats):
            seconds["reference"].append(plain.seconds())
            seconds["ours"].append(mine.seconds())
        share = None if case.device != "cpu" else mine.convolution_share()
    result["clock"], result["seconds"] = clock, seconds
    result["reference_images_per_s"] = case.batch / median(seconds["reference"])
    result["images_per_s"] = case.batch / median(seconds["ours"])
    result["ratio"] = median(seconds["reference"]) / median(seconds["ours"])
    result["convolution_share"] = share
    result["convolution_bound"] = None if share is None else result["ratio"] / share
    result["target"] = target(case)
    return result


def check(case: Case, images: int = CHECK_IMAGES) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The case with the `agreement` of both sides, and the weights they had."""
    ours = our_step(case)
    weights = {name: value.detach().cpu().clone() for name, value in ours.model.state_dict().items()}
    weights = {name.replace("_orig_mod.", ""): value for name, value in weights.items()}
    return {**asdict(case), **agreement(case, ours, weights, images)}, weights


def agreement(case: Case, ours: Step, weights: dict[str, torch.Tensor], images: int) -> dict[str, Any]:
    """Errors of loss and gradient against the reference in float64, and whether they are as they may be."""
    exact = reference_step(case, weights, "fp64").on_the_first(images)
    exact_loss, exact_gradient = exact.backward().item(), exact.gradient()

    def error(step: Step) -> tuple[float, float]:
        step = step.on_the_first(images)
        loss = step.backward().item()
        difference = (step.gradient() - exact_gradient).norm() / exact_gradient.norm()
        return abs(loss - exact_loss) / exact_loss, difference.item()

    precise = our_step(replace(case, precision="fp64", compile="off"))
    result: dict[str, Any] = {"checked_images": images, "exact_gradient_error": error(precise)[1]}
    del precise
    _, allowed = error(reference_step(case, weights, case.precision))
    result["reference_gradient_error"] = allowed
    result["loss_error"], result["gradient_error"] = error(ours)
    allowed *= SLACK[case.precision]
    result["agrees"] = result["exact_gradient_error"] <= EXACT_TOLERANCE
    if case.precision == "fp32":
        result["agrees"] &= result["loss_error"] <= LOSS_TOLERANCE
        allowed = max(allowed, GRADIENT_TOLERANCE)
    result["agrees"] &= result["gradient_error"] <= allowed
    return result


def _cpu_flags() -> str:
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            return cpuinfo.read()
    except OSError:
        return ""


def table(results: list[dict[str, Any]]) -> Table:
    """One row per case."""
    clocks = ", ".join(sorted({row["clock"] for row in results}))
    grid = Table(title=f"training step, reference / ours, {clocks} time")
    for column in (
        "cell",
        "T",
        "reference img/s",
        "ours img/s",
        "ratio",
        "MAC bound",
        "conv bound",
        "target",
        "loss error",
        "grad error",
        "reference's",
        "in float64",
    ):
        grid.add_column(column, justify="left" if column == "cell" else "right")
    for row in results:
        promised = row["target"]
        met = "-" if promised is None else f"{promised} {'met' if row['ratio'] >= promised else 'NOT MET'}"
        grid.add_row(
            row["cell_type"],
            str(row["time_steps"]),
            f"{row['reference_images_per_s']:.2f}",
            f"{row['images_per_s']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['mac_bound']:.2f}",
            "-" if row["convolution_bound"] is None else f"{row['convolution_bound']:.2f}",
            met,
            f"{row['loss_error']:.0e}",
            f"{row['gradient_error']:.1e}",
            f"{row['reference_gradient_error']:.1e}",
            f"{row['exact_gradient_error']:.0e}" + ("" if row["agrees"] else " DISAGREES"),
        )
    return grid


def main() -> int:
    """Measure every case that was asked for; 1 if a result disagrees with the reference's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, CELLS, [3, 7])
    parser.add_argument("--baseline", choices=["same", "fp32"], default="same", help="(default: same)")
    parser.add_argument("--recompute", action="store_true", help="our side with recompute")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each side (default: 5)")
    parser.add_argument(
        "--reference-keeps-memory", action="store_true", help="freed memory stays in its process, as in ours"
    )
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="(default: wall)")
    parser.add_argument(
        "--check-images",
        type=int,
        default=CHECK_IMAGES,
        help="images on which both sides must agree, float64 included (default: %(default)s)",
    )
    args = parser.parse_args()
    if args.clock == "cpu" and args.device != "cpu":
        parser.error("--clock cpu does not see a GPU's time; use --clock wall")
    if args.reference_keeps_memory and args.device != "cpu":
        parser.error("--reference-keeps-memory is about a CPU's memory")
    torch.set_num_threads(args.threads)

    console, results = Console(width=max(Console().width, 132)), []
    for case in cases(args):
        keeps = args.reference_keeps_memory
        results.append(measure(case, args.repeats, args.clock, args.check_images, keeps))
        row = results[-1]
        console.print(f"{case.cell_type} T={case.time_steps}: {row['ratio']:.2f}", highlight=False)
    console.print(table(results))
    console.print(machine(args.device), highlight=False)
    if args.json:
        write_json(args.json, {"machine": machine(args.device), "results": results})
    return 0 if all(row["agrees"] for row in results) else 1


if __name__ == "__main__":
    sys.exit(main())
