"""A search into whose journal somebody else wrote, through Optuna itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from search.conductor import Conductor
from search.journal import JOURNAL_FILE
from search.report.facts import read_facts
from search.spec import SearchSpec
from search.study import SearchStudy
from search.winner import best_trial
from tests.search.conftest import FINISHED, make_spec, row
from trainable.errors import ConfigError


@pytest.fixture
def spec() -> SearchSpec:
    return make_spec(num_samples=4, scheduler={"type": "none"})


@pytest.fixture
def other(tmp_path: Path, spec: SearchSpec) -> optuna.Study:
    """Optuna's own view of a search with a complete trial and one that runs."""
    conductor = Conductor(SearchStudy(tmp_path, spec))
    for _ in range(2):
        assert conductor.next() is not None
    conductor.report(0, row(9, 0.5, **FINISHED))
    storage = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL_FILE)))
    return optuna.load_study(study_name=tmp_path.name, storage=storage)


def run_to_the_end(folder: Path, spec: SearchSpec) -> SearchStudy:
    conductor = Conductor(SearchStudy(folder, spec))
    while (trial := conductor.next()) is not None:
        conductor.report(trial.number, row(9, 0.6 + trial.number / 100, **FINISHED))
    assert conductor.finished
    return conductor.study


def test_a_trial_added_from_elsewhere_teaches_the_sampler_and_is_none_of_the_search(
    tmp_path: Path, spec: SearchSpec, other: optuna.Study
) -> None:
    ours = other.trials[0]
    other.add_trial(create_trial(params=ours.params, distributions=ours.distributions, value=0.99))
    other.add_trial(create_trial(state=TrialState.FAIL))
    study = run_to_the_end(tmp_path, spec)
    assert [trial.number for trial in study.trials()] == [0, 1, 4, 5]
    best = best_trial(study)
    assert best is not None
    assert best.number == 5
    assert 0.99 in [trial.value for trial in study.study.trials]  # which is what a sampler sees
    assert [trial.number for trial in read_facts(study).trials] == [0, 1, 4, 5]


def test_an_enqueued_trial_is_tried_next_and_what_it_leaves_open_is_drawn(
    tmp_path: Path, spec: SearchSpec, other: optuna.Study
) -> None:
    other.enqueue_trial({"time_steps": 3})
    study = run_to_the_end(tmp_path, spec)
    assert [trial.number for trial in study.trials()] == [0, 1, 2, 3]
    assert study.trial(2).params["time_steps"] == 3
    assert study.trial(2).params.keys() == study.trial(3).params.keys()
    assert study.trial(2).state == TrialState.COMPLETE


@pytest.mark.parametrize("wrong", [{"learning_rate": 50.0}, {"learning_rate": "fast"}, {"speed": 1}])
def test_of_an_enqueued_trial_what_the_space_cannot_draw_is_told_and_drawn(
    tmp_path: Path, spec: SearchSpec, other: optuna.Study, wrong: dict[str, Any]
) -> None:
    other.enqueue_trial({"time_steps": 3, **wrong})
    (name,) = wrong
    with pytest.warns(UserWarning, match=f"trial_0002 was enqueued with .*{name}"):
        study = run_to_the_end(tmp_path, spec)
    assert study.trial(2).params["time_steps"] == 3
    assert 1e-4 <= study.trial(2).params["learning_rate"] <= 1e-1
    assert "speed" not in study.trial(2).params


def _unknown_key(event: dict[str, Any]) -> Any:
    return {"kind": "report", "when": 3}


def _number(event: dict[str, Any]) -> Any:
    return 5


def _words(event: dict[str, Any]) -> Any:
    return {**event, "epoch": "ninth"}


def _no_values(event: dict[str, Any]) -> Any:
    return {**event, "values": [None]}


@pytest.mark.parametrize("change", [_unknown_key, _number, _words, _no_values])
def test_an_event_that_is_none_is_named(
    tmp_path: Path, spec: SearchSpec, other: optuna.Study, change: Callable[[dict[str, Any]], Any]
) -> None:
    event = {"kind": "report", "epoch": 1, "resource": 1.0, "values": [0.5]}
    running = other.trials[1]
    other._storage.set_trial_system_attr(running._trial_id, "event:00000090", event)
    assert SearchStudy(tmp_path, spec).last_report(1) is not None  # a good one is read
    other._storage.set_trial_system_attr(running._trial_id, "event:00000090", change(event))
    with pytest.raises(ConfigError, match=r"journal.log: trial_0001: event:00000090 .* give --fresh"):
        SearchStudy(tmp_path, spec)
