import csv
import math
import statistics

import pytest

from benchmarks.record_curves import CURVES, EPOCHS, FIXED, GRID
from benchmarks.search_efficiency import STRATEGIES, compute_ratio, search
from search.simulate import IMAGES, Curves, simulate
from search.spec import SearchSpec


@pytest.fixture(scope="module")
def curves() -> Curves:
    return Curves(CURVES, EPOCHS)


def test_the_recorded_grid_is_complete(curves: Curves) -> None:
    assert len(curves) == math.prod(map(len, GRID.values())) == 360


def test_a_run_is_answered_by_the_curve_of_its_settings(curves: Curves) -> None:
    with CURVES.open() as file:
        line = list(csv.DictReader(file))[200]
    values = {name: type(GRID[name][0])(line[name]) for name in GRID}
    rows = curves.rows({**values, "learning_rate": values["learning_rate"] * 1.1})  # the nearest one recorded
    assert [row["val_acc"] for row in rows] == [float(line[f"val_acc_{epoch}"]) for epoch in range(1, 10)]
    assert rows[-1]["image_steps"] == 9 * IMAGES * values["time_steps"]
    assert "finished" in rows[-1]


def test_without_early_stopping_a_simulation_costs_what_its_curves_cost(curves: Curves) -> None:
    space = {
        "time_steps": {"type": "categorical", "choices": [1, 4]},
        "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    }
    fixed = {**FIXED, "learning_rate": GRID["learning_rate"][3], "normalization": "batchnorm", "dropout": 0.0}
    settings = {"sampler": {"type": "grid"}, "scheduler": {"type": "none"}, "metric": "val_acc"}
    spec = SearchSpec(train=fixed, space=space, search=settings)
    one, two = simulate(spec, curves, slots=1), simulate(spec, curves, slots=2)
    assert one.image_steps == two.image_steps == 9 * IMAGES * 2 * (1 + 4)
    finals = [
        curves.rows({**fixed, "time_steps": steps, "optimizer": name})[-1]["val_acc"]
        for steps in (1, 4)
        for name in ("adam", "sgd")
    ]
    assert one.best == two.best == max(finals)
    seconds = sum(
        row["seconds"]
        for steps in (1, 4)
        for name in ("adam", "sgd")
        for row in curves.rows({**fixed, "time_steps": steps, "optimizer": name})
    )
    assert one.seconds == pytest.approx(seconds)
    assert seconds / 2 <= two.seconds < seconds


def test_a_simulated_search_is_the_same_every_time(curves: Curves) -> None:
    one, two = (search("tpe + asha", "val_acc", 3, curves, trials=30) for _ in range(2))
    assert one.steps == two.steps
    assert [t.params for t in one.study.trials()] == [t.params for t in two.study.trials()]
    states = {trial.state.name for trial in one.study.trials()}
    assert states >= {"COMPLETE", "PRUNED"}


def test_tpe_with_asha_reaches_the_best_of_random_search_with_half_its_compute(curves: Curves) -> None:
    ratios = [compute_ratio("tpe + asha", "val_loss", seed, curves) for seed in range(9)]
    assert statistics.median(ratios) <= 0.5
    assert sum(ratio <= 1 for ratio in ratios) >= 8


def test_every_strategy_finds_a_network_that_reads_digits(curves: Curves) -> None:
    for strategy in STRATEGIES:
        assert search(strategy, "val_acc", 1, curves, trials=40).best > 0.96
