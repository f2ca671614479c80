"""How trials are laid over the machine: workers, cores, GPUs, trials at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ray import tune

from search.sections import Resources
from search.workers import run_with_workers
from trainable.distributed import Workers
from trainable.errors import ConfigError
from trainable.inprocess import run_trial

FOR_NOTHING = {"memory": 1}
"""Resources of a process that only waits for others: a byte, because Tune refuses a trial without any."""


@dataclass(frozen=True)
class Plan:
    """What every trial gets, and how many run at a time."""

    workers: Workers
    """Processes per trial and their resources."""

    concurrent: int
    """Trials at a time."""

    def trainable(self) -> Any:
        """What Ray Tune runs: the loop itself for one worker, a TorchTrainer for several.

        A TorchTrainer inside a trial costs seconds per trial (six processes and their polling); one
        worker needs none of that and runs in the trial's own process, which is used again.
        """
        if self.workers.count > 1:
            return tune.with_resources(
                tune.with_parameters(run_with_workers, workers=self.workers), FOR_NOTHING
            )
        return tune.with_resources(run_trial, {"cpu": self.workers.cpus, "gpu": self.workers.gpus})


def make_plan(resources: Resources, cpus: int, gpus: int) -> Plan:
    """Derive what `resources` leaves out from the cluster's `cpus` and `gpus`.

    Without a GPU a worker gets one core, so that as many trials as possible run at a time; with GPUs a
    worker gets one of them, and the cores are shared out.

    Raises:
        ConfigError: one trial needs more than the cluster has.
    """
    per_worker_gpus = resources.gpus_per_worker
    if per_worker_gpus is None:
        per_worker_gpus = 1.0 if gpus >= resources.workers else 0.0
    need_gpus = resources.workers * per_worker_gpus
    fit_by_gpu = int(gpus / need_gpus + 1e-9) if need_gpus else None
    concurrent = resources.concurrent_trials or fit_by_gpu
    per_worker_cpus = resources.cpus_per_worker
    if per_worker_cpus is None:
        per_worker_cpus = max(1, cpus // ((concurrent or cpus) * resources.workers))
    fit_by_cpu = cpus // (resources.workers * per_worker_cpus)
    possible = fit_by_cpu if fit_by_gpu is None else min(fit_by_cpu, fit_by_gpu)
    if possible < 1:
        needed = f"{resources.workers * per_worker_cpus} CPUs and {need_gpus:g} GPUs"
        raise ConfigError([f"resources: a trial needs {needed}; the cluster has {cpus} and {gpus}"])
    return Plan(
        Workers(resources.workers, per_worker_cpus, per_worker_gpus), min(concurrent or possible, possible)
    )
