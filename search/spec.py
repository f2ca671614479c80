"""The search's YAML file as a typed, closed, frozen object, checked in full before any compute is spent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator
from typing_extensions import Self

from search.conditions import corners, problems_of_conditions, settings
from search.interior import problems_inside
from search.points import grid_points, problems_of_points
from search.sections import CLOSED, Resources, Search, rungs_below
from search.space import ConstantParameter, Space
from search.sweep import is_sweep, search_values
from trainable.config import ADJUSTABLE, PATHS, TrainConfig
from trainable.config_file import apply_overrides, problems_of, read_mapping, validate
from trainable.errors import ConfigError

SPEC_FILE = "spec.yaml"
"""The resolved spec, in the search's folder."""

LAST_SEED = 2**31 - 1
"""The highest seed that a confirmation can train with."""


class SearchSpec(BaseModel):
    """One search: fixed settings, parameters, strategy, resources."""

    model_config = CLOSED

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
        problems += problems_of_points(self.space, self.search.points_to_evaluate)
        if self.search.sampler.type == "grid":
            grid_points(self.space, self.train)
        if not problems:
            problems = self._problems_of_the_corners() or problems_inside(self.space, self.train)
        if problems:
            raise ValueError("\n".join(problems))
        self._metrics_are_there_when_they_are_read()
        if self.search.scheduler.type == "pbt" and not self.adjustable:
            raise ValueError(
                f"search.scheduler: pbt changes settings while a network trains, and space has none that can "
                f"be: {', '.join(sorted(ADJUSTABLE))}"
            )
        self._scheduler_fits_the_length_of_a_trial()
        self._confirmation_has_seeds()
        return self

    def _scheduler_fits_the_length_of_a_trial(self) -> None:
        scheduler, maximum = self.search.scheduler, self.maximum
        if scheduler.type == "none" or maximum is None:
            return
        if scheduler.grace_period > maximum:
            raise ValueError(
                f"search.scheduler.grace_period ({scheduler.grace_period:g}) "
                f"must not exceed the {scheduler.resource} of a trial ({maximum:g})"
            )
        rungs = rungs_below(maximum, scheduler.grace_period, scheduler.reduction_factor)
        if scheduler.brackets > rungs + 1:
            raise ValueError(
                f"search.scheduler.brackets: must be at most {rungs + 1}, one more than there are rungs "
                f"below {maximum:g}, got {scheduler.brackets}"
            )

    def _confirmation_has_seeds(self) -> None:
        confirm, highest = self.search.confirm, max(config.seed for config in self.corners())
        if confirm is not None and highest + confirm.seeds > LAST_SEED:
            group = "space" if "seed" in self.space else "train"
            raise ValueError(
                f"{group}.seed: must be at most {LAST_SEED - confirm.seeds}, because search.confirm trains "
                f"with the {confirm.seeds} seeds after it too, got {highest}"
            )

    def _metrics_are_there_when_they_are_read(self) -> None:
        scheduler = self.search.scheduler
        for config in self.corners():
            for metric in self.search.metrics:
                if metric in config.not_reported:
                    key = "val_2t: end" if metric == "val_acc_2t" else f"shape_metrics: [{metric}]"
                    raise ValueError(f"search.metric: {metric} is not reported; give train.{key}")
            late = config.reported_at_the_end & set(self.search.metrics)
            every = "val_2t: always" if "val_acc_2t" in late else "shape_metrics_every: 1"
            if late and scheduler.max_resource is not None:
                raise ValueError(
                    f"search.scheduler.max_resource: a trial that ends there has no {min(late)}, which the "
                    f"last epoch reports; leave it out, or give train.{every}"
                )
            if self.search.primary in late and scheduler.type != "none":
                raise ValueError(
                    f"search.scheduler: {scheduler.type} reads {self.search.primary} in every epoch; give "
                    f"train.{every}, or type none"
                )

    def _problems_of_the_corners(self) -> list[str]:
        problems: list[str] = []
        for values in corners(self.space, self.train, between=True):
            try:
                TrainConfig(**values)
            except ValidationError as error:
                for key, message in problems_of(error, values, TrainConfig):
                    group = "space" if key.partition(".")[0] in self.space else "train"
                    problems.append(f"{group}.{key}: {message}" if key else f"train: {message}")
        return list(dict.fromkeys(problems))

    def corners(self) -> list[TrainConfig]:
        """Configurations at the edges of the space."""
        configs = (TrainConfig(**values) for values in corners(self.space, self.train))
        return list({config.model_dump_json(): config for config in configs}.values())

    @property
    def target(self) -> int:
        """Trials of the search: `num_samples`, or the points of the grid where those are fewer."""
        samples, given = self.search.num_samples, len(self.search.points_to_evaluate)
        if self.search.sampler.type == "grid":
            return min(samples, len(grid_points(self.space, self.train)) + given)
        return samples

    @property
    def adjustable(self) -> list[str]:
        """Parameters that may change while a network trains; none that others depend on."""
        parents = {parent for parameter in self.space.values() for parent in parameter.when}
        fixed = {name for name, parameter in self.space.items() if isinstance(parameter, ConstantParameter)}
        if any(config.normalization == "batchnorm_per_step" for config in self.corners()):
            fixed.add("time_steps")  # the network has weights for each of them
        return [name for name in self.space if name in ADJUSTABLE and name not in parents | fixed]

    @property
    def max_epochs(self) -> int:
        """Most epochs any trial may run."""
        return max(config.max_epochs for config in self.corners())

    @property
    def maximum(self) -> float | None:
        """Most resource any trial may spend, in the scheduler's unit; None where nothing says so."""
        scheduler = self.search.scheduler
        if scheduler.resource == "epoch" and scheduler.max_resource is None:
            return self.max_epochs
        return scheduler.max_resource

    def config(self, params: dict[str, Any]) -> TrainConfig:
        """The configuration of a trial with these parameters."""
        return TrainConfig(**settings(self.space, self.train, params))

    def to_yaml(self) -> str:
        """The resolved spec; reading it again gives an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True, by_alias=True), sort_keys=False)


def stored_spec(folder: Path) -> SearchSpec:
    """The spec of the search in `folder`; raises ConfigError where there is none."""
    path = folder / SPEC_FILE
    return validate(SearchSpec, read_mapping(path), str(path))


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
    # What W&B runs has variables of its own: ${env}, ${program}, ...
    values = read_mapping(path, literal={"command"})
    if is_sweep(values):
        values = search_values(values, str(path))
        if base is None:
            raise ConfigError(
                [f"{path}: is a sweep: give the settings it leaves out with --base CONFIG.json"]
            )
    if values and not values.keys() & SearchSpec.model_fields.keys():
        raise ConfigError(
            [
                f"{path}: is no search space: it has none of {', '.join(SearchSpec.model_fields)}; "
                "a configuration is for run_train.py, or for --base"
            ]
        )
    if base is not None:
        space, train = values.get("space"), values.get("train")
        kept = {k: v for k, v in read_mapping(base).items() if not isinstance(space, dict) or k not in space}
        if train is None or isinstance(train, dict):  # anything else is the spec's to refuse
            values["train"] = kept | (train or {})
    values = apply_overrides(values, overrides)
    train = values.get("train")
    if isinstance(train, dict):
        for key in PATHS:
            if isinstance(train.get(key), str):
                train[key] = _absolute(train[key])
    search = values.get("search")
    if isinstance(search, dict):
        warm = search.get("warm_start")
        if isinstance(warm, str) and "://" not in warm:
            search["warm_start"] = _absolute(warm)
    try:
        return validate(SearchSpec, values, str(path))
    except ConfigError as error:
        lines = [line for problem in error.problems for line in problem.splitlines()]
        source = f"{path}: "
        raise ConfigError(line if line.startswith(source) else source + line for line in lines) from None


def _absolute(path: str) -> str:
    # Path.expanduser raises where there is no such user: then it is a folder named ~nobody, which is missing.
    return str(Path(os.path.expanduser(path)).absolute())
