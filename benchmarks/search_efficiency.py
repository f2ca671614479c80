"""Claim: TPE with ASHA reaches random search's final best with at most half of its compute.

Searches are simulated over learning curves recorded from real runs (benchmarks/curves/digits.csv, made by
benchmarks/record_curves.py): the project's conductor, samplers and schedulers decide, the curves answer.
Each strategy runs once per seed with four trials at a time; compute is training images times time steps.
What is compared per seed: the compute random search took for all its trials, each run to its end, and the
compute the other took until a complete trial of its own was as good as random search's best.

    python -m benchmarks.search_efficiency [--seeds 20] [--metric val_loss]
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks.record_curves import CURVES, EPOCHS, FIXED, GRID
from search.simulate import Curves, Simulation, simulate
from search.spec import SearchSpec

RANDOM_TRIALS, TRIALS, SLOTS = 40, 120, 4
ASHA = {"type": "asha", "resource": "epoch", "grace_period": 1, "reduction_factor": 3}
STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"sampler": {"type": "random"}, "scheduler": {"type": "none"}},
    "tpe": {"sampler": {"type": "tpe"}, "scheduler": {"type": "none"}},
    "random + asha": {"sampler": {"type": "random"}, "scheduler": ASHA},
    "tpe + asha": {"sampler": {"type": "tpe"}, "scheduler": ASHA},
    "tpe + asha, promoting": {"sampler": {"type": "tpe"}, "scheduler": {**ASHA, "promote": True}},
}


def search(strategy: str, metric: str, seed: int, curves: Curves, trials: int = TRIALS) -> Simulation:
    """Simulate one search."""
    rates = GRID["learning_rate"]
    space: dict[str, Any] = {
        "learning_rate": {"type": "float", "low": rates[0], "high": rates[-1], "log": True},
        **{
            name: {"type": "categorical", "choices": values}
            for name, values in GRID.items()
            if name != "learning_rate"
        },
    }
    settings = {"metric": metric, "num_samples": trials, "seed": seed, **STRATEGIES[strategy]}
    spec = SearchSpec(train=FIXED, space=space, search=settings)
    return simulate(spec, curves, SLOTS)


def compute_ratio(strategy: str, metric: str, seed: int, curves: Curves) -> float:
    """Compute of a strategy until it is as good as random search's best, over random search's compute."""
    reference = search("random", metric, seed, curves, RANDOM_TRIALS)
    return search(strategy, metric, seed, curves).compute_to(reference.best) / reference.image_steps


def main() -> None:
    """Print a line per strategy."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, help="searches per strategy (default: 20)")
    parser.add_argument("--metric", default="val_loss", choices=("val_loss", "val_acc"))
    arguments = parser.parse_args()
    curves = Curves(CURVES, EPOCHS)
    print(f"{len(curves)} recorded curves, {arguments.seeds} seeds, metric {arguments.metric}")
    print(f"compute to random search's best of {RANDOM_TRIALS} trials, as a share of random search's")
    for strategy in STRATEGIES:
        ratios = [compute_ratio(strategy, arguments.metric, seed, curves) for seed in range(arguments.seeds)]
        reached = sum(ratio < float("inf") for ratio in ratios)
        print(f"{strategy:24} median {statistics.median(ratios):5.2f}   reached {reached}/{len(ratios)}")


if __name__ == "__main__":
    main()
