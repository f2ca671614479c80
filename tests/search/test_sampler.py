import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from pydantic import ValidationError

from search.conductor import Conductor
from search.spec import SearchSpec
from search.study import SearchStudy
from search.winner import pareto_front
from tests.search.conftest import FINISHED, make_spec, row

Memory = Callable[[SearchSpec], SearchStudy]


def run(study: SearchStudy) -> list[dict[str, Any]]:
    """A made-up search whose best learning rate is 1e-2."""
    conductor = Conductor(study)
    while (trial := conductor.next()) is not None:
        value = -abs(math.log10(trial.params["learning_rate"]) + 2)
        more = {"val_loss": float(trial.params["time_steps"])}
        conductor.report(trial.number, row(9, value, **more, **FINISHED))
    return [trial.params for trial in study.trials()]


@pytest.mark.parametrize("kind", ["tpe", "gp", "cmaes", "nsga2", "qmc", "random"])
def test_every_sampler_draws_the_same_from_the_same_seed_and_results(memory: Memory, kind: str) -> None:
    options = {"sampler": {"type": kind, "startup_trials": 4, "population": 4}, "scheduler": {"type": "none"}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = run(memory(make_spec(num_samples=10, **options)))
        again = run(memory(make_spec(num_samples=10, **options)))
        other = run(memory(make_spec(num_samples=10, seed=1, **options)))
    assert first == again
    assert first != other
    assert len({params["learning_rate"] for params in first}) > 5


@pytest.mark.parametrize("kind", ["tpe", "gp", "cmaes"])
def test_samplers_that_learn_end_nearer_to_the_optimum_than_they_began(memory: Memory, kind: str) -> None:
    sampler = {"type": kind, "startup_trials": 6}
    params = run(memory(make_spec(num_samples=36, sampler=sampler, scheduler={"type": "none"})))
    distances = [abs(math.log10(point["learning_rate"]) + 2) for point in params]
    assert sum(distances[-18:]) < 0.7 * 18 * 0.83  # a random draw lies 0.83 decades away, by integration


@pytest.mark.parametrize("kind", ["tpe", "gp", "nsga2"])
def test_several_objectives_are_searched(memory: Memory, kind: str) -> None:
    spec = make_spec(
        num_samples=16,
        metric=["val_acc", "val_loss"],
        sampler={"type": kind, "startup_trials": 4, "population": 4},
        scheduler={"type": "none"},
    )
    study = memory(spec)
    run(study)
    assert {trial.params["time_steps"] for trial in pareto_front(study)} >= {1}


def test_a_grid_is_walked_once_in_order_and_ends_the_search(memory: Memory) -> None:
    spec = SearchSpec(
        train=make_spec().train,
        search={"sampler": {"type": "grid"}, "num_samples": 50},
        space={
            "learning_rate": {"type": "categorical", "choices": [0.1, 0.01]},
            "time_steps": {"type": "int", "low": 1, "high": 3},
        },
    )
    points = [(params["learning_rate"], params["time_steps"]) for params in run(memory(spec))]
    assert points == [(0.1, 1), (0.1, 2), (0.1, 3), (0.01, 1), (0.01, 2), (0.01, 3)]


def test_a_grid_over_endless_values_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"space.learning_rate: sampler grid needs choices, or a step"):
        make_spec(sampler={"type": "grid"})


def test_given_points_come_first_and_the_rest_of_them_is_drawn(memory: Memory) -> None:
    points = [{"learning_rate": 0.03, "time_steps": 3}, {"time_steps": 4}]
    params = run(memory(make_spec(num_samples=5, points_to_evaluate=points)))
    assert params[0] == points[0]
    assert params[1]["time_steps"] == 4
    assert len({point["learning_rate"] for point in params}) == 5


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"learning_rat": 0.1}, "points_to_evaluate.0.learning_rat: not in space"),
        (
            {"learning_rate": 3},
            "points_to_evaluate.0.learning_rate: must be a number from 0.0001 to 0.1, got 3",
        ),
    ],
)
def test_given_points_outside_the_space_are_refused(point: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_spec(points_to_evaluate=[point])


def test_tpe_stays_away_from_settings_that_cannot_be_used(memory: Memory) -> None:
    study = memory(make_spec(num_samples=40, scheduler={"type": "none"}))
    conductor, steps = Conductor(study), []
    while (trial := conductor.next()) is not None:
        steps.append(trial.params["time_steps"])
        if trial.params["time_steps"] > 2:
            conductor.report(trial.number, {"infeasible": "out of memory"})
        else:
            conductor.report(trial.number, row(9, 0.5, **FINISHED))
    assert sum(step > 2 for step in steps[20:]) < sum(step > 2 for step in steps[:20])


def test_a_study_in_memory_needs_no_folder(memory: Memory) -> None:
    assert isinstance(memory(make_spec()).storage, InMemoryStorage)
