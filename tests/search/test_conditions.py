import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from pydantic import ValidationError

from search.conditions import corners, draw, settings
from search.points import grid_points
from search.spec import SearchSpec, load_spec
from search.study import SearchStudy
from tests.commands import SMALL
from trainable.errors import ConfigError

FIXED = {
    k: v for k, v in SMALL.items() if k not in ("cell_type", "learning_rate", "time_steps", "batch_size")
}
SPACE: dict[str, Any] = {
    # Children stand before their parents: the order of the file does not matter.
    "hidden_init": {"type": "constant", "value": "identity", "when": {"cell_type": ["fgru"]}},
    "time_steps": {"type": "int", "low": 1, "high": 6, "when": {"cell_type": ["gru", "fgru"]}},
    "cell_type": {"type": "categorical", "choices": ["conv", "gru", "fgru"]},
    "learning_rate": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
    "batch_size": {"type": "int", "low": 10, "high": 100, "log": True, "quantize": 16},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5, "quantize": 0.1, "when": {"time_steps": [5, 6]}},
    "optimizer": "sgd",
}


def spec(**changes: Any) -> SearchSpec:
    fixed = {key: value for key, value in FIXED.items() if key != "optimizer"}
    return SearchSpec(**{"train": fixed, "space": SPACE, **changes})


def drawn(one: SearchSpec, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    draw(one.space, one.train, trial)
    return trial.params, settings(one.space, one.train, trial.params)


def test_a_parameter_is_drawn_exactly_where_its_condition_holds() -> None:
    one = spec()
    cells, kinds = set(), set()
    for seed in range(60):
        params, values = drawn(one, seed)
        cell = params["cell_type"]
        cells.add(cell)
        assert ("time_steps" in params) == (cell != "conv")
        assert values.get("hidden_init") == ("identity" if cell == "fgru" else None)
        # A condition upon a conditional parameter: its default counts where it was not drawn.
        assert ("dropout" in params) == (params.get("time_steps", 1) >= 5)
        assert "dropout" in params or values["dropout"] == FIXED["dropout"]
        kinds.add("dropout" in params)
        assert values["optimizer"] == "sgd"
        assert one.config(params).cell_type == cell
    assert cells == {"conv", "gru", "fgru"}
    assert kinds == {True, False}


def test_quantized_values_are_multiples_within_the_bounds() -> None:
    one = spec()
    batches = {drawn(one, seed)[1]["batch_size"] for seed in range(200)}
    assert batches == {16, 32, 48, 64, 80, 96}  # never 0 or 112, the multiples next to 10 and 100
    dropouts = {drawn(one, seed)[1]["dropout"] for seed in range(200)}
    assert dropouts <= {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert 0.3 in dropouts


def test_corners_reach_every_parameter_wherever_it_counts() -> None:
    one = spec()
    points = corners(one.space, one.train)
    assert {(p["cell_type"], p.get("time_steps")) for p in points} >= {
        ("conv", None),
        ("gru", 1),
        ("gru", 6),
        ("fgru", 1),
        ("fgru", 6),
    }
    assert {p["dropout"] for p in points if p.get("time_steps") == 5} >= {0.0, 0.5}
    assert len(points) == len({json.dumps(p, sort_keys=True) for p in points})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"time_steps": {"type": "int", "low": 1, "high": 2, "when": {"cell": ["gru"]}}},
            "cell: not in space",
        ),
        (
            {"time_steps": {"type": "int", "low": 1, "high": 2, "when": {"cell_type": ["gruu"]}}},
            "cell_type is never 'gruu'",
        ),
        (
            {
                "skip_first": {"type": "categorical", "choices": [True], "when": {"do_preconv": [True]}},
                "do_preconv": {"type": "categorical", "choices": [True], "when": {"skip_first": [True]}},
            },
            "run in a circle: skip_first, do_preconv",
        ),
        (
            {
                "seed": {"type": "int", "low": 0, "high": 3},
                "weight_decay": {"type": "float", "low": 0, "high": 0.1, "when": {"seed": [1]}},
            },
            "space.weight_decay.when.seed: no parameter may depend on the seed",
        ),
        ({"batch_size": {"type": "int", "low": 17, "high": 31, "quantize": 16}}, "no multiple of quantize"),
        ({"dropout": {"type": "float", "low": 0, "high": 0.5, "step": 0.1, "quantize": 0.1}}, "exclude each"),
        ({"optimizer": "sgdd"}, "space.optimizer: .*'sgdd'"),
    ],
)
def test_a_wrong_condition_is_named(change: dict[str, Any], message: str) -> None:
    fixed = {key: value for key, value in FIXED.items() if key != "skip_first"}
    with pytest.raises(ValidationError, match=message):
        spec(space={**SPACE, **change}, train=fixed)


STEPPED: dict[str, Any] = {
    "time_steps": {"type": "int", "low": 1, "high": 7, "step": 2},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.1},
    "batch_size": {"type": "int", "low": 2, "high": 16, "quantize": 4},
    "weight_decay": {"type": "float", "low": 0.1, "high": 0.3},
    "cell_type": {"type": "categorical", "choices": ["gru", "rnn"]},
    "learning_rate": 0.1,
}


def stepped(when: dict[str, Any] | None = None, **search: Any) -> SearchSpec:
    """A space of steps, in which gradients may be clipped under a condition."""
    fixed = {key: value for key, value in FIXED.items() if key != "dropout"}
    clip = {} if when is None else {"clip_norm": {"value": 1.0, "when": when}}
    return SearchSpec(train=fixed, space={**STEPPED, **clip}, search=search)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"time_steps": [2]}, "when.time_steps: time_steps is never 2"),
        ({"time_steps": [True]}, "time_steps is never True"),
        ({"time_steps": [1, "3"]}, "time_steps is never '3'"),
        ({"batch_size": [3]}, "batch_size is never 3"),
        ({"dropout": [0.35]}, "dropout is never 0.35"),
        ({"weight_decay": [0.2]}, "weight_decay, a number without step or quantize, is never 0.2"),
        ({"learning_rate": [True]}, "learning_rate is never True"),
    ],
)
def test_a_condition_that_never_holds_is_refused(when: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        stepped(when)


@pytest.mark.parametrize("when", [{"time_steps": [3]}, {"batch_size": [4, 8]}, {"dropout": [0.3]}])
def test_a_condition_on_a_value_of_the_grid_holds_where_it_is_drawn(when: dict[str, Any]) -> None:
    one = stepped(when)
    (name,) = when
    held = set()
    for seed in range(60):
        _, values = drawn(one, seed)
        if "clip_norm" in values:
            held.add(round(values[name], 9))
    assert held == set(when[name])


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"time_steps": 2.5}, "must be a whole number from 1 to 7 in steps of 2, got 2.5"),
        ({"time_steps": 2}, "in steps of 2, got 2"),
        ({"time_steps": True}, "in steps of 2, got True"),
        ({"dropout": 0.15}, "must be a number from 0 to 0.5 in steps of 0.1, got 0.15"),
        ({"dropout": 0.6}, "from 0 to 0.5 in steps of 0.1, got 0.6"),
        ({"weight_decay": "0.2"}, "must be a number from 0.1 to 0.3, got '0.2'"),
        ({"weight_decay": float("nan")}, "must be a number from 0.1 to 0.3, got nan"),
        ({"cell_type": ["gru"]}, r"must be one of \['gru', 'rnn'\], got \['gru'\]"),
    ],
)
def test_a_point_that_no_trial_could_draw_is_refused(point: dict[str, Any], message: str) -> None:
    (name,) = point
    with pytest.raises(ValidationError, match=f"search.points_to_evaluate.0.{name}: .*{message}"):
        stepped(points_to_evaluate=[point])


def test_a_point_on_the_grid_is_tried_first(tmp_path: Path) -> None:
    point = {"time_steps": 3, "dropout": 0.3, "batch_size": 7, "weight_decay": 0.1, "cell_type": "rnn"}
    study = SearchStudy(tmp_path, stepped(points_to_evaluate=[point]))
    trial = study.ask()
    assert trial.params == pytest.approx(point)
    assert study.config(trial).batch_size == 8


def test_a_conditional_spec_reads_back_equal_and_searches(tmp_path: Path) -> None:
    one = spec()
    assert SearchSpec(**yaml.safe_load(one.to_yaml())) == one
    study = SearchStudy(tmp_path, one)
    assert study.trials() == []


SWEEP = {
    "method": "bayes",
    "name": "test-sweep",
    "metric": {"goal": "maximize", "name": "val_acc"},
    "parameters": {
        "learning_rate": {"max": 0.1, "min": 0.000001, "distribution": "log_uniform_values"},
        "batch_size": {"values": [1024, 512, 256, 128, 64, 32, 16]},
        "cell_kernel": {"values": [3, 4, 5, 6, 7]},
    },
    "early_terminate": {"type": "hyperband", "min_iter": 10},
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**SMALL, "epochs": 30}))
    return path


def write(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "sweep_configuration.json"
    path.write_text(json.dumps({**SWEEP, **changes}))
    return path


def test_the_original_sweep_file_is_a_search_as_it_is(tmp_path: Path, base: Path) -> None:
    one = load_spec(write(tmp_path), ["search.num_samples=3"], base)
    assert one.search.scheduler.grace_period == 10
    assert one.search.scheduler.type == "asha"
    assert one.search.sampler.type == "tpe"
    assert one.search.num_samples == 3
    assert one.train["time_steps"] == SMALL["time_steps"]
    assert "learning_rate" not in one.train  # swept: the base's value gives way
    config = one.config({"learning_rate": 1e-6, "batch_size": 1024, "cell_kernel": 4})
    assert (config.learning_rate, config.batch_size, config.cell_kernel) == (1e-6, 1024, 4)


def test_the_command_of_a_sweep_keeps_its_own_variables_and_all_else_is_expanded(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHOICE", "adam")
    sweep = {"command": ["${env}", "${interpreter}", "${program}", "${args}"], "run_cap": 3}
    parameters = {**SWEEP["parameters"], "optimizer": {"value": "${CHOICE}"}}
    one = load_spec(write(tmp_path, **sweep, parameters=parameters), [], base)
    assert one.config({"learning_rate": 0.1, "batch_size": 32, "cell_kernel": 3}).optimizer == "adam"
    with pytest.raises(ConfigError, match="name: environment variable env is not set"):
        load_spec(write(tmp_path, name="${env}"), [], base)


def test_every_distribution_has_its_bounds(tmp_path: Path, base: Path) -> None:
    parameters = {
        "learning_rate": {"distribution": "log_uniform", "min": -6.907755, "max": 0},
        "momentum": {"distribution": "inv_log_uniform", "min": 0.693147, "max": 2.302585},
        "batch_size": {"distribution": "q_log_uniform_values", "min": 16, "max": 128, "q": 16},
        "dropout": {"min": 0.0, "max": 0.5},
        "time_steps": {"min": 1, "max": 3},
        "optimizer": {"value": "sgd"},
    }
    one = load_spec(write(tmp_path, parameters=parameters, run_cap=7), [], base)
    assert one.search.num_samples == 7
    expected = {"learning_rate": (1e-3, 1), "momentum": (0.1, 0.5), "batch_size": (16, 128)}
    for name, bounds in expected.items():
        assert one.space[name].extremes() == pytest.approx(bounds, rel=1e-5)
        assert one.space[name].log
    assert one.space["dropout"].type == "float"
    assert one.space["time_steps"].type == "int"
    values = settings(one.space, one.train, {"batch_size": 41.0, "learning_rate": 0.1})
    assert (values["batch_size"], values["optimizer"]) == (48, "sgd")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "bayesian"}, "method: must be one of bayes, random, grid"),
        ({"metric": {"name": "val_acc", "goal": "max"}}, "metric.goal: must be one of maximize, minimize"),
        (
            {"parameters": {"dropout": {"distribution": "normal", "min": 0, "max": 1}}},
            "parameters.dropout: dist",
        ),
        ({"parameters": {"dropout": {"min": 0}}}, "parameters.dropout: give value"),
        ({"early_terminate": {"type": "envelope"}}, "type must be hyperband"),
        ({"early_stop": 1}, "early_stop: unknown key of a sweep"),
        ({"metric": {"name": "accuracy", "goal": "maximize"}}, "unknown metric 'accuracy'"),
    ],
)
def test_what_a_sweep_gets_wrong_is_named(
    tmp_path: Path, base: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_spec(write(tmp_path, **changes), [], base)


def bounds(**given: Any) -> dict[str, Any]:
    """One parameter of a sweep."""
    return {"parameters": {"learning_rate": {"min": 0.1, "max": 0.2, **given}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            bounds(distribution="log_uniform", min="a"),
            "parameters.learning_rate: min: must be a number, got 'a'",
        ),
        (bounds(distribution="q_log_uniform", max="b"), "learning_rate: max: must be a number, got 'b'"),
        (bounds(distribution="log_uniform", max=1000), r"learning_rate: e\^1000 is beyond"),
        (bounds(distribution="inv_log_uniform", min=-1000), r"learning_rate: e\^1000 is beyond"),
        (bounds(distribution="log_uniform", min=-1000), r"learning_rate: e\^-1000 is beyond"),
        (bounds(distribution=["uniform"]), r"distribution: must be one of constant, .*got \['uniform'\]"),
        (bounds(distribution="normal", mu=0), "distribution: must be one of constant, .*got 'normal'"),
        (bounds(distribution="constant"), "distribution: must be one of uniform, .*got 'constant'"),
        (bounds(max=float("inf")), "max: must be a number, got inf"),
        (bounds(max=0), r"min \(0.1\) must not exceed max \(0\)"),
        (bounds(q=2), "q: does not belong to uniform"),
        (bounds(distribution="q_uniform", q=0), "q: must be above 0, got 0"),
        (bounds(distribution="int_uniform"), "int_uniform takes whole numbers"),
        (bounds(values=[1]), "max, min: not supported here; supported: distribution, values"),
        ({"parameters": {"optimizer": {"parameters": {}}}}, "optimizer: parameters: not supported here"),
        (
            {"parameters": {"optimizer": {"values": ["sgd"], "probabilities": [1]}}},
            "probabilities: not supported",
        ),
        ({"parameters": {"optimizer": {"values": ["sgd"], "distribution": "uniform"}}}, "one of categorical"),
        ({"method": "grid", "parameters": {"time_steps": {"values": 3}}}, "values: must be a list .*got 3"),
        ({"method": ["a"]}, r"method: must be one of bayes, random, grid, got \['a'\]"),
        ({"metric": {"name": "val_acc", "goal": ["a"]}}, r"metric.goal: must be one of .*got \['a'\]"),
        ({"metric": {"name": "val_acc", "impute": "worst"}}, "metric.impute: not supported here"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 3, "eta": "a"}}, "early_terminate.eta: .*'a'"),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 0}},
            "eta: must be at least 1.1, got 0",
        ),
        (
            {"early_terminate": {"type": "hyperband", "max_iter": "a", "s": 2}},
            "early_terminate.max_iter: must be a number, got 'a'",
        ),
        (
            {"early_terminate": {"type": "hyperband", "max_iter": 27, "s": None}},
            "early_terminate.s: must be a number, got None",
        ),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 3, "strict": True}},
            "early_terminate.strict: not supported",
        ),
        ({"run_cap": "a"}, "run_cap: must be a number, got 'a'"),
        ({"run_cap": 1.5}, "run_cap: must be a whole number, got 1.5"),
    ],
)
def test_what_a_sweep_holds_of_the_wrong_kind_is_named(
    tmp_path: Path, base: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_spec(write(tmp_path, **changes), [], base)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize(
    ("stop", "grace"), [({"max_iter": 27, "s": 2}, 3), ({"max_iter": 27, "s": 10**9}, 1)]
)
def test_the_first_rung_of_a_sweep_is_max_iter_over_eta_to_the_s(
    tmp_path: Path, base: Path, stop: dict[str, Any], grace: int
) -> None:
    one = load_spec(write(tmp_path, early_terminate={"type": "hyperband", **stop}), [], base)
    assert one.search.scheduler.grace_period == grace


def test_constant_and_categorical_are_distributions_too(tmp_path: Path, base: Path) -> None:
    parameters = {
        "optimizer": {"distribution": "constant", "value": "sgd"},
        "learning_rate": {"distribution": "categorical", "values": [0.1, 0.01]},
    }
    one = load_spec(write(tmp_path, parameters=parameters), [], base)
    assert one.space["learning_rate"].extremes() == [0.1, 0.01]
    assert one.space["optimizer"].extremes() == ["sgd"]


def test_a_grid_sweep_tries_every_point_of_whole_numbers_too(tmp_path: Path, base: Path) -> None:
    parameters = {
        "time_steps": {"min": 1, "max": 3},
        "learning_rate": {"values": [0.1, 0.01]},
        "optimizer": {"value": "sgd"},
    }
    assert load_spec(write(tmp_path, method="grid", parameters=parameters), [], base).target == 6
    assert load_spec(write(tmp_path, method="grid", parameters=parameters, run_cap=4), [], base).target == 4


def test_a_sweep_without_base_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--base CONFIG.json"):
        load_spec(write(tmp_path), [])


def test_a_grid_has_every_point_once_whatever_does_not_count_there() -> None:
    space = {
        "learning_rate": {"type": "categorical", "choices": [0.1, 0.01]},
        "cell_type": {"type": "categorical", "choices": ["conv", "gru"]},
        "time_steps": {"type": "int", "low": 1, "high": 3, "when": {"cell_type": ["gru"]}},
        "optimizer": "sgd",
    }
    one = spec(space=space, train={**FIXED, "batch_size": 32}, search={"sampler": {"type": "grid"}})
    points = grid_points(one.space, one.train)
    assert len(points) == 2 * (1 + 3)
    assert {(p["cell_type"], p.get("time_steps")) for p in points} == {
        ("conv", None),
        ("gru", 1),
        ("gru", 2),
        ("gru", 3),
    }
