"""Session over Ray Train: a TorchTrainer with one process per worker and one exchange per step."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from torch import Tensor

from trainable import signals
from trainable.config import TrainConfig
from trainable.loop import train
from trainable.session import Interrupted
from trainable.working import working_folder
from trainable.working_folder import WorkingFolder

# Ray Train asks its workers for news every 2 s by default, which a run of short epochs would wait for.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")

_RAY_FOLDER = "ray_train"
"""What Ray Train keeps for itself, within the run's folder."""


@dataclass(frozen=True)
class Workers:
    """How many processes train one configuration together, and what each may use."""

    count: int = 1
    """Worker processes."""

    cpus: int = 1
    """CPU cores per worker."""

    gpus: float = 0
    """GPUs per worker; below 1 several share one."""


class TrainSession:
    """One worker's Session inside a TorchTrainer."""

    def __init__(self, folder: WorkingFolder, threads: int, *, pausable: bool) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = ray.train.torch.get_device()
        self.folder = folder.path
        self.threads = threads
        self.pausable = pausable
        self._working = folder
        self._stop = signals.StopWatch(folder.path)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the workers by all-reduce."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, by rank."""
        values: list[Any] = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value)
        return values

    def stop_requested(self) -> bool:
        """Whether this worker got a signal, or the command that started it."""
        return self._stop.requested()

    def checkpoint_written(self) -> None:
        """Bring it into storage; worker 0 alone writes any."""
        self._working.store_checkpoints()

    def report(self, metrics: dict[str, Any]) -> None:
        """Hand the metrics to Ray Train, once they are in storage; all workers pass here together."""
        if self.rank == 0:
            self._working.store()
        ray.train.report(metrics)


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray's set-up of torch.distributed; then the workers listen to signals."""

    def on_training_start(self, worker_group: Any, backend_config: Any) -> None:
        """Runs in the workers' main threads, the only ones that may; training runs in another."""
        super().on_training_start(worker_group, backend_config)
        worker_group.execute(signals.install)


@dataclass
class _Config(TorchConfig):
    """TorchConfig with workers that listen to signals."""

    @property
    def backend_cls(self) -> type:
        """What sets the workers up."""
        return _Backend


class _Trainer(TorchTrainer):
    """A TorchTrainer without two of its processes: one for Ray's datasets, one that watches the controller.

    The latter frees what the workers had reserved where the controller was killed. It asks Ray's dashboard:
    without one it gets no answer, and stopping it takes 12 s at the end of every run. Here a search frees the
    reservation itself (search/workers.py), and Ray does when the command has ended.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [c for c in callbacks if not isinstance(c, (DatasetsCallback, PlacementGroupCleanerCallback))]


def _worker(loop_config: dict[str, Any]) -> None:
    config = TrainConfig(**loop_config["config"])
    # Stopped is an end like any other to Ray; whoever started the run sees that its last row is missing.
    first = ray.train.get_context().get_world_rank() == 0
    with contextlib.suppress(Interrupted), working_folder(loop_config, writes=first) as folder:
        train(config, TrainSession(folder, loop_config["threads"], pausable=loop_config["pausable"]))


def fit(
    config: TrainConfig,
    folder: Path,
    workers: Workers,
    *,
    max_failures: int = 0,
    pausable: bool = False,
    callbacks: list[Any] | None = None,
    remote: str | None = None,
    stoppable: bool = False,
) -> None:
    """Train one configuration on `workers` through a TorchTrainer; returns when the run has ended.

    Args:
        config: What to train.
        folder: Folder of the run, in Ray storage: seen under the same path by every node.
        workers: Number and resources of the worker processes.
        max_failures: Times a crashed worker group is started again, from the last checkpoint.
        pausable: Whether the run may be put aside at a report, see `Session`.
        callbacks: Ray Train callbacks, e.g. the one that reports to Ray Tune.
        remote: URI of the run's folder in a bucket, which each worker has a copy of; `folder` then holds only
            what Ray Train keeps for itself.
        stoppable: Whether whoever calls may ask the run to stop, see run_place.py.

    Raises:
        ValueError: the batch does not divide over the workers.
        ray.train.TrainingFailedError: the workers failed for good.
    """
    if config.batch_size % workers.count:
        raise ValueError(
            f"batch_size ({config.batch_size}) must be a multiple of the workers ({workers.count})"
        )
    resources: dict[str, float] = {"CPU": workers.cpus}
    if workers.gpus:
        resources["GPU"] = workers.gpus
    _Trainer(
        _worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "folder": str(folder),
            "threads": workers.cpus,
            "pausable": pausable,
            "stoppable": stoppable,
            **({"remote": remote} if remote else {}),
        },
        scaling_config=ScalingConfig(
            num_workers=workers.count, use_gpu=workers.gpus > 0, resources_per_worker=resources
        ),
        torch_config=_Config(backend="nccl" if workers.gpus >= 1 and torch.cuda.is_available() else "gloo"),
        run_config=RunConfig(
            # Ray counts by this name, in ASCII; a run's folder may be called anything.
            name=_RAY_FOLDER,
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=max_failures),
            callbacks=callbacks,
        ),
    ).fit()
