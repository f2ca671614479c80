import math
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from search.conductor import Conductor
from search.spec import SearchSpec
from search.study import SearchStudy
from search.winner import best_trial
from tests.search.conftest import FINISHED, make_spec, row


def test_a_warm_start_teaches_the_sampler_and_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old = SearchStudy(tmp_path / "old", make_spec(num_samples=20, scheduler={"type": "none"}))
    conductor = Conductor(old)
    while (trial := conductor.next()) is not None:
        distance = abs(math.log10(trial.params["learning_rate"]) + 3.5)
        conductor.report(trial.number, row(9, -distance, **FINISHED))
    new = SearchStudy(tmp_path / "new", make_spec(num_samples=4, scheduler={"type": "none"}))
    new.add_warm_start("old", old.finished()[:7])  # killed half-way
    new.add_warm_start("old", old.finished())
    assert len(new.study.trials) == 20
    assert new.trials() == []
    drawn = [trial.params["learning_rate"] for trial in (Conductor(new).next(),) if trial]
    assert drawn[0] == pytest.approx(10**-3.5, rel=1.5)
    assert len(new.trials()) == 1
    assert best_trial(new) is None


LOG = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}


def warmed(sampler: str, old: dict[str, Any], new: dict[str, Any]) -> tuple[SearchStudy, str]:
    """A search over `new` that has learned from one over `old`, and what it said of it."""
    values = make_spec(num_samples=12, scheduler={"type": "none"}).model_dump(mode="json", by_alias=True)
    first, second = (
        SearchStudy(Path(f"/nowhere/{name}"), SearchSpec(**{**values, "space": space}), InMemoryStorage())
        for name, space in (("old", old), ("new", new))
    )
    conductor = Conductor(first)
    while (trial := conductor.next()) is not None:
        conductor.report(trial.number, row(9, 0.1 * trial.number, **FINISHED))
    spec = second.spec.model_dump(mode="json", by_alias=True)
    spec["search"]["sampler"] = {"type": sampler, "startup_trials": 2}
    second = SearchStudy(second.folder, SearchSpec(**spec), second.storage)
    return second, second.add_warm_start("old", first.finished())


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "nsga2", "qmc", "random"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (LOG, {"type": "float", "low": 1e-3, "high": 0.5, "log": True}),
        (LOG, {"type": "float", "low": 1e-4, "high": 1e-1}),
        (LOG, {"type": "categorical", "choices": [0.1, 0.01]}),
        ({"type": "categorical", "choices": [0.1, 0.01]}, LOG),
        (
            {"type": "categorical", "choices": [0.1, 0.01]},
            {"type": "categorical", "choices": [0.01, 0.02, 0.1]},
        ),
    ],
)
def test_a_warm_start_from_another_space_speaks_the_new_ones_language(
    sampler: str, old: dict[str, Any], new: dict[str, Any]
) -> None:
    steps = {"type": "int", "low": 1, "high": 4}
    study, told = warmed(
        sampler, {"learning_rate": old, "time_steps": steps}, {"learning_rate": new, "time_steps": steps}
    )
    mine = study.ask()
    assert "trials taken over" in told
    for trial in study.study.trials[:-1]:
        known = trial.distributions
        assert known == {name: mine.distributions[name] for name in known}
        assert sampler in ("tpe", "random") or len(known) == 2  # others draw jointly what all have


def test_a_warm_start_says_what_it_leaves_out() -> None:
    study, told = warmed(
        "gp",
        {"learning_rate": {"type": "categorical", "choices": [0.1, 0.01]}},
        {"learning_rate": {"type": "categorical", "choices": [0.1, 0.5]}},
    )
    count = len(study.study.trials)
    assert 0 < count < 12
    assert {trial.params["learning_rate"] for trial in study.study.trials} == {0.1}
    assert told == (
        f"{count} of 12 trials taken over; "
        "this space's learning_rate had no value, or one outside, in some of them"
    )
    other = {"learning_rate": 0.01, "ema_decay": {"type": "float", "low": 0.5, "high": 0.9}}
    _, told = warmed("tpe", other, {"learning_rate": LOG})
    assert told.startswith("0 of 12 trials taken over")
