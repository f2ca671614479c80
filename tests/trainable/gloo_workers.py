"""Real worker processes over gloo, without Ray around them: `python gloo_workers.py RANK FOLDER JOBS`.

JOBS is a JSON file: a list of jobs, each with a name, settings, and what happens to which worker.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tests.trainable.test_memory import memory_for
from trainable.config import TrainConfig
from trainable.loop import train
from trainable.session import Interrupted, LocalSession

WORKERS = 2


class GlooSession(LocalSession):
    """One of WORKERS processes; asked to stop in its `stops`-th step."""

    world_size = WORKERS

    def __init__(self, folder: Path, rank: int, stops: int) -> None:
        super().__init__(folder, device=torch.device("cpu"))
        self.rank = rank
        self.stops = stops
        self.asked = 0

    def sum(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * WORKERS
        dist.all_gather_object(values, value)
        return values

    def stop_requested(self) -> bool:
        self.asked += 1
        return self.asked == self.stops


def main(rank: int, folder: Path, jobs: list[dict[str, Any]]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORKERS)
    for job in jobs:
        mine = job.get("rank") == rank
        session = GlooSession(folder / job["name"], rank, job["stops"] if mine and "stops" in job else -1)
        images = job["images"] if mine and "images" in job else 10**6
        with memory_for(images):
            try:
                train(TrainConfig(**job["settings"]), session)
            except Interrupted as reason:
                (folder / f"{job['name']}-{rank}.txt").write_text(str(reason))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()))
