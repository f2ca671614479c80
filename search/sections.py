"""The parts of a search's YAML file beside `train` and `space`, each with its defaults and rules."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from trainable.metrics import OBJECTIVES

CLOSED = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def rungs_below(maximum: float, grace: float, eta: float) -> int:
    """How many of the resources grace eta^k, k = 0, 1, ... lie below `maximum`."""
    return max(0, math.ceil(math.log(maximum / grace, eta) - 1e-9))


class Sampler(BaseModel):
    """Who chooses the next configuration."""

    model_config = CLOSED

    type: Literal["tpe", "gp", "cmaes", "nsga2", "qmc", "random", "grid"] = "tpe"
    """A key of search.sampler.SAMPLERS, or `grid`: every combination once, in order."""

    startup_trials: int = Field(default=10, ge=1)
    """Trials drawn at random before `tpe`, `gp` or `cmaes` start to learn from results."""

    population: int = Field(default=50, ge=2)
    """Trials per generation of `nsga2`."""


class Scheduler(BaseModel):
    """Who stops trials early, and in what it counts."""

    model_config = CLOSED

    type: Literal["asha", "hyperband", "median", "pbt", "none"] = "asha"
    """`asha`: asynchronous successive halving; `hyperband`: asha in several brackets; `median`: stop what is
    worse than the median of the others; `pbt`: population based training, in which the worst go on with
    weights and settings of the best; `none`: all run to their end."""

    resource: Literal["epoch", "images", "image_steps", "seconds"] = "epoch"
    """What is spent on a trial, and compared at: passes over the data, images seen, images times time steps
    (2 and 16 steps then compete for equal compute), or seconds of its epochs."""

    max_resource: float | None = Field(default=None, gt=0, le=1e18)
    """Resource at which a trial is complete, however many epochs it has left. Left out: its epochs decide."""

    grace_period: float = Field(default=1, ge=1e-6)
    """Resource every trial may spend before it can be stopped."""

    reduction_factor: float = Field(default=3.0, ge=1.1, le=1e6)
    """`asha`, `hyperband`: at each rung the best 1/reduction_factor of the trials go on. Below 1.1 there
    would be a rung at every report, and none would stop much."""

    promote: bool = False
    """`asha`: pause every trial at a rung, and go on with one when it is among the best there. Left off, a
    trial goes on unless it is among the worst of those that came before it."""

    brackets: int = Field(default=1, ge=1, le=50)
    """`asha`: sets of rungs, the next one starting a rung higher; a trial's is drawn from the seed. At most
    one more than there are rungs: the last one never stops a trial. `hyperband` has that many."""

    min_trials: int = Field(default=5, ge=1)
    """`median`: trials that must have come as far before one is stopped."""

    perturbation_interval: int = Field(default=1, ge=1)
    """`pbt`: epochs of a round, after which all trials of the search, its population, are compared."""

    quantile_fraction: float = Field(default=0.25, gt=0.0, le=0.5)
    """`pbt`: share of the trials that take over another's weights, and of those that are taken over."""

    resample_probability: float = Field(default=0.25, ge=0.0, le=1.0)
    """`pbt`: how often a parameter that was taken over is drawn anew instead of changed a little."""

    perturbation_factors: tuple[float, float] = (0.8, 1.2)
    """`pbt`: what a number that was taken over is multiplied by, one or the other."""

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> Self:
        if self.promote and self.type != "asha":
            raise ValueError(f"promote belongs to asha, got type {self.type}")
        if self.brackets > 1 and self.type != "asha":
            raise ValueError(f"brackets belong to asha, got type {self.type}")
        if self.type == "pbt" and self.resource != "epoch":
            raise ValueError(f"pbt counts in epochs, got resource {self.resource}")
        if not all(0 < factor <= 1000 for factor in self.perturbation_factors):
            raise ValueError(
                "perturbation_factors must be above 0 and at most 1000, "
                f"got {list(self.perturbation_factors)}"
            )
        if self.type == "hyperband" and self.resource != "epoch" and self.max_resource is None:
            raise ValueError(f"hyperband over {self.resource} needs max_resource")
        if self.resource == "epoch" and self.grace_period != int(self.grace_period):
            raise ValueError(f"grace_period counts whole epochs, got {self.grace_period}")
        if self.max_resource is not None and self.grace_period > self.max_resource:
            raise ValueError(
                f"grace_period ({self.grace_period:g}) must not exceed max_resource ({self.max_resource:g})"
            )
        return self


class Confirm(BaseModel):
    """What is trained again once the search is done."""

    model_config = CLOSED

    top: int = Field(default=3, ge=1)
    """Best complete trials that are trained again, to their end."""

    seeds: int = Field(default=3, ge=1)
    """New seeds for each of them. The best mean wins; the value of the search itself does not count."""


class Search(BaseModel):
    """What is optimized, how often, by whom."""

    model_config = CLOSED

    metric: str | list[str] = "val_acc"
    """What to optimize: a key of trainable.metrics.OBJECTIVES, or several for a Pareto front. The scheduler
    looks at the first."""

    mode: Literal["min", "max"] | list[Literal["min", "max"]] | None = None
    """Direction, one per metric; left out: the metric's own (accuracies max, losses and costs min)."""

    num_samples: int = Field(default=20, ge=1)
    """Configurations to try. A finished search goes on when this is raised."""

    max_failures: int = Field(default=2, ge=0)
    """Times a crashed trial is started again from its checkpoint before it counts as failed."""

    trial_timeout: float | None = Field(default=None, gt=0)
    """Seconds a trial may go without a report before it is killed, which counts as a crash. Give it a few
    times an epoch; the first report also waits for data and compilation. Left out: patience without end."""

    diverged: Literal["fail", "worst"] = "fail"
    """What the sampler hears of a diverged trial: nothing (`fail`: it is left out), or that such settings
    break a constraint (`worst`: told as pruned, and ranked behind all others)."""

    points_to_evaluate: list[dict[str, Any]] = []
    """Configurations to try first; parameters left out are drawn."""

    warm_start: str | None = None
    """Folder of an earlier search (or `s3://BUCKET/FOLDER`) whose ended trials the sampler learns from;
    values that this search's space has too are taken over. They don't count among this search's trials."""

    seed: int = Field(default=0, ge=0)
    """Seed of the sampler: trial n's draw depends on the seed, n and the results known by then."""

    keep_checkpoints: int = Field(default=5, ge=1)
    """Ended trials whose checkpoints and weights stay on disk: the best ones. Running ones keep theirs."""

    confirm: Confirm | None = None
    """Train the best again with new seeds after the search. Left out: the best single value wins."""

    sampler: Sampler = Sampler()
    """Settings of the sampler."""

    scheduler: Scheduler = Scheduler()
    """Settings of the scheduler."""

    @model_validator(mode="after")
    def _metrics_are_reported(self) -> Self:
        for metric in self.metrics:
            if metric not in OBJECTIVES:
                raise ValueError(f"unknown metric {metric!r}; a trial reports: {', '.join(OBJECTIVES)}")
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"metric must name each objective once, got {self.metrics}")
        modes = [self.mode] if isinstance(self.mode, str) else self.mode
        if modes is not None and len(modes) != len(self.metrics):
            raise ValueError(f"mode must be as long as metric, got {modes} for {self.metrics}")
        if len(self.metrics) > 1 and self.sampler.type == "cmaes":
            raise ValueError("sampler cmaes takes one metric; several need tpe, gp, nsga2, qmc or random")
        if self.confirm is not None and self.scheduler.type == "pbt":
            raise ValueError(
                "confirm trains one configuration from start to end; under pbt none stays the same"
            )
        return self

    @property
    def metrics(self) -> list[str]:
        """All objectives."""
        return [self.metric] if isinstance(self.metric, str) else list(self.metric)

    @property
    def directions(self) -> list[str]:
        """`min` or `max` for each of `metrics`."""
        if isinstance(self.mode, str):
            return [self.mode]
        return list(self.mode or (OBJECTIVES[metric] for metric in self.metrics))

    @property
    def primary(self) -> str:
        """The first objective: what the scheduler and `best` look at."""
        return self.metrics[0]

    @property
    def direction(self) -> str:
        """`min` or `max` for the first objective."""
        return self.directions[0]

    @property
    def sign(self) -> int:
        """What makes the first objective larger-is-better by multiplication."""
        return 1 if self.direction == "max" else -1


class Resources(BaseModel):
    """What a trial may use; left out: derived from the machine."""

    model_config = CLOSED

    workers: int = Field(default=1, ge=1)
    """Processes per trial; above 1 a trial is a TorchTrainer of its own."""

    cpus_per_worker: int | None = Field(default=None, ge=1)
    """CPU cores per worker; left out: the machine's, shared between concurrent trials."""

    gpus_per_worker: float | None = Field(default=None, ge=0)
    """GPUs per worker; left out: 1 where the machine has any. Below 1, trials share a GPU; above, a whole
    number."""

    concurrent_trials: int | None = Field(default=None, ge=1)
    """Trials at a time; left out: as many as fit."""

    @model_validator(mode="after")
    def _only_one_gpu_can_be_shared(self) -> Self:
        gpus = self.gpus_per_worker
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus_per_worker must be a whole number, or below 1 to share one, got {gpus:g}")
        return self
