"""The search's YAML file as a typed, closed, frozen object, checked in full before any compute is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from search.conditions import corners, problems_of_conditions, settings
from search.space import Space
from search.sweep import is_sweep, search_values
from trainable.config import TrainConfig
from trainable.config_file import ConfigError, apply_overrides, describe, read_mapping, validate
from trainable.metrics import OBJECTIVES

_CLOSED = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Sampler(BaseModel):
    """Who chooses the next configuration."""

    model_config = _CLOSED

    type: Literal["tpe", "random"] = "tpe"
    """`tpe`: Optuna's multivariate tree-structured Parzen estimator; `random`: independent draws."""

    startup_trials: int = Field(default=10, ge=1)
    """Trials drawn at random before `tpe` starts to learn from results."""


class Scheduler(BaseModel):
    """Who stops trials early."""

    model_config = _CLOSED

    type: Literal["asha", "none"] = "asha"
    """`asha`: asynchronous successive halving; `none`: every trial runs all its epochs."""

    grace_period: int = Field(default=1, ge=1)
    """Epochs every trial may run before it can be stopped."""

    reduction_factor: float = Field(default=3.0, gt=1.0)
    """At each rung the best 1/reduction_factor of the trials go on."""


class Search(BaseModel):
    """What is optimized, how often, by whom."""

    model_config = _CLOSED

    metric: str = "val_acc"
    """What to optimize: a key of trainable.metrics.OBJECTIVES."""

    mode: Literal["min", "max"] | None = None
    """Direction; left out: the metric's own (accuracies max, losses min)."""

    num_samples: int = Field(default=20, ge=1)
    """Configurations to try. A finished search goes on when this is raised."""

    max_failures: int = Field(default=2, ge=0)
    """Times a crashed trial is started again from its checkpoint before it counts as failed."""

    seed: int = Field(default=0, ge=0)
    """Seed of the sampler: trial n's draw depends on the seed, n and the results known by then."""

    sampler: Sampler = Sampler()
    """Settings of the sampler."""

    scheduler: Scheduler = Scheduler()
    """Settings of the scheduler."""

    @model_validator(mode="after")
    def _metric_is_reported(self) -> Self:
        if self.metric not in OBJECTIVES:
            raise ValueError(f"unknown metric {self.metric!r}; a trial reports: {', '.join(OBJECTIVES)}")
        return self

    @property
    def direction(self) -> str:
        """`min` or `max`."""
        return self.mode or OBJECTIVES[self.metric]


class Resources(BaseModel):
    """What a trial may use; left out: derived from the machine."""

    model_config = _CLOSED

    workers: int = Field(default=1, ge=1)
    """Processes per trial; above 1 a trial is a TorchTrainer of its own."""

    cpus_per_worker: int | None = Field(default=None, ge=1)
    """CPU cores per worker; left out: the machine's, shared between concurrent trials."""

    gpus_per_worker: float | None = Field(default=None, ge=0)
    """GPUs per worker; left out: 1 where the machine has any. Below 1, trials share a GPU."""

    concurrent_trials: int | None = Field(default=None, ge=1)
    """Trials at a time; left out: as many as fit."""


class SearchSpec(BaseModel):
    """One search: fixed settings, parameters, strategy, resources."""

    model_config = _CLOSED

    train: dict[str, Any]
    """Fixed settings of every trial: keys of TrainConfig."""

    space: Space = Field(min_length=1)
    """Parameters: keys of TrainConfig, each with the values it may take, and when it is drawn at all."""

    search: Search = Search()
    """Metric, number of samples, sampler, scheduler, seed."""

    resources: Resources = Resources()
    """Workers, CPUs and GPUs per worker, concurrent trials."""

    @model_validator(mode="after")
    def _every_corner_is_a_valid_config(self) -> Self:
        problems = [
            f"space.{name}: unknown setting; allowed: {', '.join(sorted(TrainConfig.model_fields))}"
            for name in self.space
            if name not in TrainConfig.model_fields
        ]
        problems += [
            f"space.{name}: is also in train; keep one"
            for name, parameter in self.space.items()
            if name in self.train and not parameter.when
        ]
        problems += problems_of_conditions(self.space)
        if not problems:
            problems = self._problems_of_the_corners()
        if problems:
            raise ValueError("\n".join(problems))
        if (self.search.scheduler.type == "asha") and self.search.scheduler.grace_period > self.max_epochs:
            raise ValueError(
                f"search.scheduler.grace_period ({self.search.scheduler.grace_period}) "
                f"must not exceed the epochs of a trial ({self.max_epochs})"
            )
        return self

    def _problems_of_the_corners(self) -> list[str]:
        problems: list[str] = []
        for values in corners(self.space, self.train):
            try:
                TrainConfig(**values)
            except ValidationError as error:
                for line in describe(error, "", allowed=sorted(TrainConfig.model_fields)):
                    key, _, message = line.removeprefix(": ").partition(": ")
                    group = "space" if key in self.space else "train"
                    problems.append(f"{group}.{key}: {message}" if message else f"train: {key}")
        return list(dict.fromkeys(problems))

    def corners(self) -> list[TrainConfig]:
        """Configurations at the edges of the space."""
        configs = (TrainConfig(**values) for values in corners(self.space, self.train))
        return list({config.model_dump_json(): config for config in configs}.values())

    @property
    def max_epochs(self) -> int:
        """Most epochs any trial may run."""
        return max(config.max_epochs for config in self.corners())

    def config(self, params: dict[str, Any]) -> TrainConfig:
        """The configuration of a trial with these parameters."""
        return TrainConfig(**settings(self.space, self.train, params))

    def to_yaml(self) -> str:
        """The resolved spec; reading it again gives an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True, by_alias=True), sort_keys=False)


def load_spec(path: str | Path, overrides: list[str], base: str | Path | None = None) -> SearchSpec:
    """Read a search YAML, apply `--set` overrides (`train.epochs=3`, `search.num_samples=8`, ...).

    Data paths become absolute, because trials run in folders of their own.

    Args:
        path: A search space, or a Weights & Biases sweep file.
        overrides: KEY=VALUE each.
        base: A configuration that `train` is completed from; parameters of the space replace its settings.

    Raises:
        ConfigError: one line per problem.
    """
    values = read_mapping(path)
    if is_sweep(values):
        values = search_values(values, str(path))
        if base is None:
            raise ConfigError(
                [f"{path}: is a sweep: give the settings it leaves out with --base CONFIG.json"]
            )
    if base is not None:
        kept = {k: v for k, v in read_mapping(base).items() if k not in values.get("space", {})}
        values["train"] = kept | (values.get("train") or {})
    values = apply_overrides(values, overrides)
    train = values.get("train")
    if isinstance(train, dict):
        for key in ("dataset_path", "dataset_val_path"):
            if isinstance(train.get(key), str):
                train[key] = str(Path(train[key]).expanduser().absolute())
    try:
        return validate(SearchSpec, values, str(path))
    except ConfigError as error:
        lines = [line for problem in error.problems for line in problem.splitlines()]
        source = f"{path}: "
        raise ConfigError(line if line.startswith(source) else source + line for line in lines) from None
