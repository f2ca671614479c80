"""Flags that say which images and stimuli are shown; shared by experiments.stimuli and experiments.rsa."""

from __future__ import annotations

import argparse

from experiments.sources import DATASETS
from experiments.stimuli.make import ASPECTS, PROTOCOLS, STIMULI


def add_stimulus_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --dataset and so on."""
    parser.add_argument("--dataset", choices=DATASETS, required=True, help="digits: the embedded sample")
    parser.add_argument("--path", metavar="VOC", help="folder of Pascal VOC with SegmentationClass/")
    parser.add_argument("--split", default="trainval", choices=("train", "val", "trainval"), help="of VOC")
    parser.add_argument(
        "--stimuli",
        nargs="+",
        default=STIMULI,
        metavar="NAME",
        help=f"which of {', '.join(STIMULI)} (default: all)",
    )
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="thesis", help="whose stimuli (default: thesis)"
    )
    parser.add_argument(
        "--aspect", choices=ASPECTS, default="stretch", help="pad keeps the object's proportions"
    )
    parser.add_argument("--time-steps", metavar="1-15", help="default: 1 to those of the training")
    parser.add_argument("--limit", type=int, metavar="N", help="only about N images, spread over the classes")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="images per pass (default: 64)"
    )
