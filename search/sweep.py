"""Weights & Biases sweep files, as they are: method, metric, parameters and early_terminate become a search.

The keys are those of W&B's sweep configuration (docs.wandb.ai, "Sweep configuration options"). The settings
that a sweep file leaves out come from `--base CONFIG.json`.

Refused, because nothing here does the same: nested `parameters`, `probabilities`, the normal and beta
distributions, `metric.target`, `metric.impute`, `early_terminate.strict`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from trainable.errors import ConfigError

_KEYS = {"method", "metric", "parameters", "early_terminate", "run_cap"}
_WITHOUT_EFFECT = {"program", "command", "entity", "project", "name", "description"}
_METHODS = {"bayes": "tpe", "random": "random", "grid": "grid"}
_GOALS = {"maximize": "max", "minimize": "min"}
_HUGE = 1e300

_Bounds = Callable[[float, float, float], dict[str, Any]]


def _log(low: float, high: float) -> dict[str, Any]:
    return {"type": "float", "low": low, "high": high, "log": True}


def _exp(exponent: float) -> float:
    try:
        value = math.exp(exponent)
    except OverflowError:
        value = math.inf
    if not 0 < value < math.inf:
        raise ValueError(
            f"e^{exponent:g} is beyond what a float can hold; min and max are exponents of e here, and "
            "the bounds themselves in the distributions that end in _values"
        )
    return value


# Of min, max and q. `log_uniform` takes exponents of e, the `_values` forms the bounds themselves; the
# inverse forms draw uniformly in log(1/x), which is the same as in log(x).
_DISTRIBUTIONS: dict[str, _Bounds] = {
    "uniform": lambda low, high, q: {"type": "float", "low": low, "high": high},
    "q_uniform": lambda low, high, q: {"type": "float", "low": low, "high": high, "quantize": q},
    "int_uniform": lambda low, high, q: {"type": "int", "low": low, "high": high},
    "log_uniform": lambda low, high, q: _log(_exp(low), _exp(high)),
    "log_uniform_values": lambda low, high, q: _log(low, high),
    "q_log_uniform": lambda low, high, q: _log(_exp(low), _exp(high)) | {"quantize": q},
    "q_log_uniform_values": lambda low, high, q: _log(low, high) | {"quantize": q},
    "inv_log_uniform": lambda low, high, q: _log(_exp(-high), _exp(-low)),
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
    for part in (_method, _metric, _run_cap, _early_terminate):
        try:
            search |= part(sweep)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(f"{source}: {problem}" for problem in problems)
    if search["sampler"]["type"] == "grid":
        search.setdefault("num_samples", math.prod(map(_count, space.values())))
    return {"train": {}, "space": space, "search": search}


def _parameter(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"must be a mapping with value, values, or min and max, got {given!r}")
    if "distribution" in given:
        _one_of(given["distribution"], ["constant", "categorical", *_DISTRIBUTIONS], "distribution")
    if "value" in given:
        _only(given, {"value", "distribution"})
        _one_of(given.get("distribution", "constant"), ["constant"], "distribution")
        return {"type": "constant", "value": given["value"]}
    if "values" in given:
        _only(given, {"values", "distribution"})
        _one_of(given.get("distribution", "categorical"), ["categorical"], "distribution")
        if not isinstance(given["values"], list) or not given["values"]:
            raise ValueError(f"values: must be a list with at least one value, got {given['values']!r}")
        return {"type": "categorical", "choices": given["values"]}
    _only(given, {"min", "max", "distribution", "q"})
    if not {"min", "max"} <= set(given):
        raise ValueError("give value, values, or min and max")
    low, high = _number(given, "min"), _number(given, "max")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = _one_of(
        given.get("distribution", "int_uniform" if whole else "uniform"), _DISTRIBUTIONS, "distribution"
    )
    if low > high:
        raise ValueError(f"min ({low}) must not exceed max ({high})")
    if kind == "int_uniform" and not whole:
        raise ValueError(f"int_uniform takes whole numbers, got min {low} and max {high}")
    if "q" in given and not kind.startswith("q_"):
        raise ValueError(f"q: does not belong to {kind}, but to the distributions that begin with q_")
    q = _number({"q": 1, **given}, "q")
    if q <= 0:
        raise ValueError(f"q: must be above 0, got {q!r}")
    return _DISTRIBUTIONS[kind](low, high, q)


def _count(parameter: dict[str, Any]) -> int:
    """Values of a grid along one parameter; a float, which has no end of them, is the spec's to refuse."""
    if parameter["type"] == "int":
        return int(parameter["high"] - parameter["low"]) + 1
    return len(parameter.get("choices", [None]))


def _only(given: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not supported here; supported: {', '.join(sorted(known))}")


def _one_of(value: Any, known: Iterable[str], key: str) -> str:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{key}: must be one of {', '.join(known)}, got {value!r}")
    return value


def _number(group: dict[str, Any], key: str, least: float = -math.inf) -> float:
    value = group[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _HUGE:
        raise ValueError(f"{key}: must be a number, got {value!r}")
    if value < least:
        raise ValueError(f"{key}: must be at least {least}, got {value!r}")
    return value


def _method(sweep: dict[str, Any]) -> dict[str, Any]:
    return {"sampler": {"type": _METHODS[_one_of(sweep.get("method"), _METHODS, "method")]}}


def _metric(sweep: dict[str, Any]) -> dict[str, Any]:
    metric = sweep.get("metric")
    if metric is None and sweep.get("method") != "bayes":
        return {}  # random and grid don't need one; the search's own default ranks the trials
    if not isinstance(metric, dict) or "name" not in metric:
        raise ValueError("metric: must hold name, and goal: maximize or minimize")
    if "target" in metric:
        raise ValueError("metric.target: not supported; give run_cap, or --trials")
    with _under("metric"):
        _only(metric, {"name", "goal"})
        goal = _one_of(metric.get("goal", "minimize"), _GOALS, "goal")
    return {"metric": metric["name"], "mode": _GOALS[goal]}


def _run_cap(sweep: dict[str, Any]) -> dict[str, Any]:
    if "run_cap" not in sweep:
        return {}
    if _number(sweep, "run_cap", least=1) != int(sweep["run_cap"]):
        raise ValueError(f"run_cap: must be a whole number, got {sweep['run_cap']!r}")
    return {"num_samples": int(sweep["run_cap"])}


def _early_terminate(sweep: dict[str, Any]) -> dict[str, Any]:
    """`min_iter` is the first rung; with `max_iter` and `s` it is max_iter / eta^s."""
    stop = sweep.get("early_terminate")
    if stop is None:
        return {"scheduler": {"type": "none"}}
    if not isinstance(stop, dict) or stop.get("type") != "hyperband":
        raise ValueError(f"early_terminate: type must be hyperband, got {stop!r}")
    if "min_iter" not in stop and not {"max_iter", "s"} <= set(stop):
        raise ValueError("early_terminate: give min_iter, or max_iter and s")
    with _under("early_terminate"):
        if stop.get("strict", False) is not False:
            raise ValueError("strict: not supported")
        _only(stop, {"type", "min_iter", "max_iter", "s", "eta", "strict"})
        eta = _number({"eta": 3, **stop}, "eta", least=1.1)
        if "min_iter" in stop:
            grace = _number(stop, "min_iter", least=1)
        else:
            last, rungs = _number(stop, "max_iter", least=1), _number(stop, "s", least=0)
            grace = max(1, round(last * float(eta) ** -rungs))
    return {"scheduler": {"type": "asha", "grace_period": grace, "reduction_factor": eta}}


@contextlib.contextmanager
def _under(group: str) -> Iterator[None]:
    """Name keys within the block as parts of `group`."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{group}.{error}") from None
