"""Accuracy of trained networks on diagnostic stimuli, after every time step.

python -m experiments.stimuli --weights runs/fgru/best.weights --dataset digits
python -m experiments.stimuli --weights 'runs/*/best.weights' --dataset voc --path VOC2012 --time-steps 1-15
"""

from __future__ import annotations

import argparse
import sys

from experiments.runner import EPILOG, add_arguments, guarded
from experiments.stimuli.options import add_stimulus_arguments


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.stimuli",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    add_stimulus_arguments(parser)
    parser.add_argument(
        "--decision",
        choices=("argmax", "restricted", "mean"),
        default="argmax",
        help="how outputs finer than the data set's classes decide (default: argmax, as the thesis)",
    )
    parser.add_argument("--permutations", type=int, default=10_000, metavar="N", help="default: 10000")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse_arguments(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    # torch takes seconds to import: --help and parse errors come at once.
    from experiments.runner import run, settings_of
    from experiments.stimuli.evaluate import StimuliSettings, check, evaluate

    settings = settings_of(StimuliSettings, arguments)
    name = f"stimuli-{settings.dataset}-{settings.protocol}.json"
    return run(arguments, evaluate, settings, name, lambda: check(settings))


if __name__ == "__main__":
    sys.exit(main())
