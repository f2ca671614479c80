"""Claim: checkpoints cost under 2 % of an epoch, with the normal gru tower at 224 px.

Trains on synthetic images and saves as the training loop does (copy, then write beside training). What a
checkpoint costs is the time `save` takes plus what the steps lose while the writer runs, against the median
step without one. Prints it for an epoch of ImageNet (1,281,167 images) at the speed measured here and for a
stated epoch length, and for comparison the cost of writing while training waits.

    python benchmarks/checkpoint.py --epoch-minutes 30
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from models import build_model
from trainable.checkpoint import CheckpointStore

IMAGENET = 1_281_167


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4, help="images per step (default: 4)")
    parser.add_argument("--time-steps", type=int, default=2, help="of the network (default: 2)")
    parser.add_argument(
        "--steps", type=int, default=8, help="steps measured without a checkpoint (default: 8)"
    )
    parser.add_argument("--checkpoints", type=int, default=3, help="checkpoints measured (default: 3)")
    parser.add_argument("--epoch-minutes", type=float, default=30, help="of the stated epoch (default: 30)")
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings: dict[str, Any] = {
        "model_base": "ff_tower", "tower_type": "normal", "cell_type": "gru", "skip_first": True,
        "time_steps": arguments.time_steps, "normalization": "batchnorm",
    }  # fmt: skip
    model = build_model(settings, 1000).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images = torch.randn(arguments.batch, 3, 224, 224, device=device)
    labels = torch.randint(1000, (arguments.batch,), device=device)

    def step() -> float:
        started = time.perf_counter()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def content() -> dict[str, Any]:
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    for _ in range(3):
        step()
    plain = statistics.median(step() for _ in range(arguments.steps))
    blocked, slowed, written, waited = [], [], [], []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        store = CheckpointStore(Path(scratch))
        for number in range(1, arguments.checkpoints + 1):
            started = time.perf_counter()
            store.save((number, 0), content())
            blocked.append(time.perf_counter() - started)
            lost = 0.0
            while store.writing:
                lost += step() - plain
            slowed.append(lost)
            written.append(time.perf_counter() - started)
            step()
        size = store.path((number, 0)).stat().st_size
        for number in range(1, arguments.checkpoints + 1):
            started = time.perf_counter()
            store.save((100 + number, 0), content())
            store.wait()
            waited.append(time.perf_counter() - started)
    cost = statistics.mean(blocked) + max(0.0, statistics.mean(slowed))
    speed = arguments.batch / plain
    print(f"{device}: {size / 1e6:.0f} MB per checkpoint; a step of {arguments.batch} images: {plain:.2f} s")
    print(f"save blocks for {statistics.mean(blocked):.3f} s, then writes beside training")
    print(f"steps lose {statistics.mean(slowed):.3f} s while it writes ({statistics.mean(written):.1f} s)")
    print(f"cost per checkpoint {cost:.3f} s; {statistics.mean(waited):.3f} s if training waited")
    for name, seconds in (
        (f"ImageNet at {speed:.1f} images/s", IMAGENET / speed),
        ("stated", 60 * arguments.epoch_minutes),
    ):
        print(f"epoch ({name}, {seconds / 3600:.1f} h): {100 * cost / seconds:.4f} % per checkpoint")


if __name__ == "__main__":
    main()
