"""Record the learning curves that searches are simulated on: every configuration of a grid, trained once.

A small recurrent network is trained on the embedded digits, by the project's own loop, for nine epochs at
each of 360 configurations: ten learning rates x three numbers of time steps x three normalizations x two
rates of dropout x two optimizers. The grid is complete, so a simulated search only ever sees curves that were
trained: nothing is interpolated. Configurations already in the file are not trained again.

    python -m benchmarks.record_curves [--out benchmarks/curves/digits.csv]     about 6 minutes on one core
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import tempfile
from pathlib import Path
from typing import Any

from trainable import atomic
from trainable.config import TrainConfig
from trainable.loop import train
from trainable.session import LocalSession

CURVES = Path(__file__).parent / "curves" / "digits.csv"
EPOCHS = 9
FIXED: dict[str, Any] = {
    "dataset": "digits",
    "cell_type": "rnn",
    "skip_first": True,
    "filters": [6, 12],
    "pools": [True, True],
    "first_kernel": 3,
    "first_stride": 2,
    "batch_size": 64,
    "epochs": EPOCHS,
    "seed": 0,
}
GRID: dict[str, list[Any]] = {
    "learning_rate": [float(f"{1e-4 * 10 ** (step * 0.4):.3g}") for step in range(10)],  # 1e-4 to 0.4
    "time_steps": [1, 2, 4],
    "normalization": ["none", "batchnorm", "layernorm"],
    "dropout": [0.0, 0.3],
    "optimizer": ["adam", "sgd"],
}
MEASURES = ("val_acc", "val_loss", "seconds")


def record(point: dict[str, Any]) -> dict[str, Any]:
    """Train one configuration; its line of the table. A diverged run's curve ends where it diverged."""
    with tempfile.TemporaryDirectory() as folder:
        session = LocalSession(Path(folder), threads=1)
        train(TrainConfig(**FIXED, **point), session)
    return point | {
        f"{name}_{row['epoch']}": f"{row[name]:.5g}" for row in session.reports for name in MEASURES
    }


def main() -> None:
    """Record what the file still lacks, a line at a time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=CURVES, help="the table (default: the shipped one)")
    out: Path = parser.parse_args().out
    lines: list[dict[str, Any]] = []
    if out.exists():
        with out.open() as file:
            lines = list(csv.DictReader(file))
    known = {tuple(line[name] for name in GRID) for line in lines}
    columns = [*GRID, *(f"{name}_{epoch}" for name in MEASURES for epoch in range(1, EPOCHS + 1))]
    for values in itertools.product(*GRID.values()):
        if tuple(map(str, values)) in known:
            continue
        lines.append(record(dict(zip(GRID, values, strict=True))))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        atomic.write_text(out, text.getvalue())
        print(f"{len(lines)}  {lines[-1]}"[:150], flush=True)


if __name__ == "__main__":
    main()
