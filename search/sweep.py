"""Weights & Biases sweep files, as they are: method, metric, parameters and early_terminate become a search.

The keys are those of W&B's sweep configuration (docs.wandb.ai, "Sweep configuration options"). The settings
that a sweep file leaves out come from `--base CONFIG.json`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from trainable.errors import ConfigError

_KEYS = {"method", "metric", "parameters", "early_terminate", "run_cap"}
_WITHOUT_EFFECT = {"program", "command", "entity", "project", "name", "description"}
_METHODS = {"bayes": "tpe", "random": "random", "grid": "grid"}
_GOALS = {"maximize": "max", "minimize": "min"}

_Bounds = Callable[[float, float, float], dict[str, Any]]


def _log(low: float, high: float) -> dict[str, Any]:
    return {"type": "float", "low": low, "high": high, "log": True}


# Of min, max and q. `log_uniform` takes exponents of e, the `_values` forms the bounds themselves; the
# inverse forms draw uniformly in log(1/x), which is the same as in log(x).
_DISTRIBUTIONS: dict[str, _Bounds] = {
    "uniform": lambda low, high, q: {"type": "float", "low": low, "high": high},
    "q_uniform": lambda low, high, q: {"type": "float", "low": low, "high": high, "quantize": q},
    "int_uniform": lambda low, high, q: {"type": "int", "low": low, "high": high},
    "log_uniform": lambda low, high, q: _log(math.exp(low), math.exp(high)),
    "log_uniform_values": lambda low, high, q: _log(low, high),
    "q_log_uniform": lambda low, high, q: _log(math.exp(low), math.exp(high)) | {"quantize": q},
    "q_log_uniform_values": lambda low, high, q: _log(low, high) | {"quantize": q},
    "inv_log_uniform": lambda low, high, q: _log(math.exp(-high), math.exp(-low)),
    "inv_log_uniform_values": lambda low, high, q: _log(low, high),
}


def is_sweep(values: dict[str, Any]) -> bool:
    """Whether a mapping is a sweep file rather than a search space of this project."""
    return "parameters" in values and "space" not in values


def search_values(sweep: dict[str, Any], source: str) -> dict[str, Any]:
    """A sweep file's content as the mapping that a SearchSpec is built from; its `train` is empty.

    `bayes` becomes TPE, which like W&B's Gaussian process learns from results; `early_terminate: hyperband`
    becomes ASHA with the same first rung and reduction factor.

    Args:
        sweep: The file's content.
        source: Its name, for errors.

    Raises:
        ConfigError: one line per key that is unknown, wrong, or without a counterpart.
    """
    problems = [
        f"{key}: unknown key of a sweep; known: {', '.join(sorted(_KEYS | _WITHOUT_EFFECT))}"
        for key in sweep
        if key not in _KEYS | _WITHOUT_EFFECT
    ]
    space = {}
    parameters = sweep["parameters"]
    if not isinstance(parameters, dict) or not parameters:
        parameters = {}
        problems.append("parameters: must name at least one parameter")
    for name, given in parameters.items():
        try:
            space[name] = _parameter(given)
        except ValueError as error:
            problems.append(f"parameters.{name}: {error}")
    search: dict[str, Any] = {}
    for part in (_method, _metric, _early_terminate):
        try:
            search |= part(sweep)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(f"{source}: {problem}" for problem in problems)
    if "run_cap" in sweep:
        search["num_samples"] = sweep["run_cap"]
    elif search["sampler"]["type"] == "grid":
        search["num_samples"] = math.prod(len(p.get("choices", [0])) for p in space.values())
    return {"train": {}, "space": space, "search": search}


def _parameter(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"must be a mapping with value, values, or min and max, got {given!r}")
    unknown = set(given) - {"value", "values", "min", "max", "distribution", "q"}
    if unknown:
        raise ValueError(
            f"{', '.join(sorted(unknown))}: not supported here; give value, values or min and max"
        )
    if "value" in given:
        return {"type": "constant", "value": given["value"]}
    if "values" in given:
        return {"type": "categorical", "choices": given["values"]}
    if not {"min", "max"} <= set(given):
        raise ValueError("give value, values, or min and max")
    low, high = given["min"], given["max"]
    whole = isinstance(low, int) and isinstance(high, int)
    kind = given.get("distribution", "int_uniform" if whole else "uniform")
    if kind not in _DISTRIBUTIONS:
        raise ValueError(f"distribution must be one of {', '.join(_DISTRIBUTIONS)}, got {kind!r}")
    return _DISTRIBUTIONS[kind](low, high, given.get("q", 1))


def _method(sweep: dict[str, Any]) -> dict[str, Any]:
    method = sweep.get("method")
    if method not in _METHODS:
        raise ValueError(f"method: must be one of {', '.join(_METHODS)}, got {method!r}")
    return {"sampler": {"type": _METHODS[method]}}


def _metric(sweep: dict[str, Any]) -> dict[str, Any]:
    metric = sweep.get("metric")
    if metric is None and sweep.get("method") != "bayes":
        return {}  # random and grid don't need one; the search's own default ranks the trials
    if not isinstance(metric, dict) or "name" not in metric:
        raise ValueError("metric: must hold name, and goal: maximize or minimize")
    if "target" in metric:
        raise ValueError("metric.target: not supported; give run_cap, or --trials")
    goal = metric.get("goal", "minimize")
    if goal not in _GOALS:
        raise ValueError(f"metric.goal: must be maximize or minimize, got {goal!r}")
    return {"metric": metric["name"], "mode": _GOALS[goal]}


def _early_terminate(sweep: dict[str, Any]) -> dict[str, Any]:
    """`min_iter` is the first rung; with `max_iter` and `s` it is max_iter / eta^s."""
    stop = sweep.get("early_terminate")
    if stop is None:
        return {"scheduler": {"type": "none"}}
    if not isinstance(stop, dict) or stop.get("type") != "hyperband":
        raise ValueError(f"early_terminate: type must be hyperband, got {stop!r}")
    unknown = set(stop) - {"type", "min_iter", "max_iter", "s", "eta", "strict"}
    if unknown:
        raise ValueError(f"early_terminate.{min(unknown)}: unknown key")
    eta = stop.get("eta", 3)
    if "min_iter" in stop:
        grace = stop["min_iter"]
    elif {"max_iter", "s"} <= set(stop):
        grace = max(1, round(stop["max_iter"] / eta ** stop["s"]))
    else:
        raise ValueError("early_terminate: give min_iter, or max_iter and s")
    return {"scheduler": {"type": "asha", "grace_period": grace, "reduction_factor": eta}}
