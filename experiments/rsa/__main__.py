"""Representational similarity: how alike trained networks represent photos and stimuli made of them.

    python -m experiments.rsa --weights runs/fgru/best.weights --dataset digits
    python -m experiments.rsa --weights 'runs/*/best.weights' --dataset voc --path VOC2012 --time-steps 1-15

RDMs of every layer (hidden1, cell1, ...) and time step are squared Euclidean distances; those of the stimuli
are compared with those of the normal images, and the similarities are bootstrapped over classes.
"""

from __future__ import annotations

import argparse
import sys

from experiments.runner import EPILOG, add_arguments, guarded
from experiments.stimuli.options import add_stimulus_arguments


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.rsa",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    add_stimulus_arguments(parser)
    parser.add_argument(
        "--method", choices=("fixed", "weighted"), default="fixed", help="fixed: rho-a; weighted: Pearson"
    )
    parser.add_argument(
        "--bootstrap",
        choices=("classes", "images"),
        default="classes",
        help="what is drawn (default: classes)",
    )
    parser.add_argument("--bootstraps", type=int, default=1000, metavar="N", help="default: 1000")
    parser.add_argument(
        "--memory", type=float, default=4.0, metavar="GIB", help="activations kept at a time (default: 4)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse_arguments(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    # torch takes seconds to import: --help and parse errors come at once.
    from experiments.rsa.evaluate import RSASettings, check, evaluate
    from experiments.runner import run, settings_of

    settings = settings_of(RSASettings, arguments)
    name = f"rsa-{settings.dataset}-{settings.protocol}-{settings.method}.json"
    return run(arguments, evaluate, settings, name, lambda: check(settings))


if __name__ == "__main__":
    sys.exit(main())
