import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search.sampler import StudySearcher, build_sampler
from search.scheduler import ResumableASHA
from search.spec import SearchSpec
from search.study import SearchStudy
from tests.commands import SMALL

FINISHED = {"finished": True}


@pytest.fixture
def spec() -> SearchSpec:
    fixed = {key: value for key, value in SMALL.items() if key not in ("learning_rate", "time_steps")}
    return SearchSpec(
        train={**fixed, "epochs": 9},
        space={
            "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "time_steps": {"type": "int", "low": 1, "high": 4},
        },
        search={"sampler": {"startup_trials": 2}, "scheduler": {"grace_period": 1, "reduction_factor": 3}},
    )


def row(epoch: int, value: float, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, "val_acc": value, **more}


def test_only_a_finished_trial_is_complete(tmp_path: Path, spec: SearchSpec) -> None:
    study = SearchStudy(tmp_path, spec)
    searcher = StudySearcher(study, threads=1)
    for name in ("stopped", "done", "nan", "crashed", "interrupted"):
        searcher.suggest(name)
        searcher.on_trial_result(name, row(1, 0.9 if name == "stopped" else 0.5))
    searcher.on_trial_complete("stopped", row(2, 0.95))
    searcher.on_trial_complete("done", row(9, 0.6, **FINISHED))
    searcher.on_trial_complete("nan", row(2, math.nan, diverged="nan_loss"))
    searcher.on_trial_complete("crashed", None, error=True)
    searcher.on_trial_complete("interrupted")
    states = [trial.state for trial in SearchStudy(tmp_path, spec).trials()]
    assert states == [
        TrialState.PRUNED,
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.FAIL,
        TrialState.RUNNING,
    ]
    assert study.trials()[0].intermediate_values == {1: 0.9, 2: 0.95}
    assert study.trials()[2].user_attrs["cause"] == "nan_loss"
    # 0.95 after two epochs does not beat 0.6 after nine.
    best = study.best()
    assert best is not None
    assert best.number == 1


def test_a_resumed_search_hands_out_the_unfinished_trials_first(tmp_path: Path, spec: SearchSpec) -> None:
    first = StudySearcher(SearchStudy(tmp_path, spec), threads=1)
    given = [first.suggest(str(i)) for i in range(3)]
    first.on_trial_complete("1", row(9, 0.5, **FINISHED))
    second = StudySearcher(SearchStudy(tmp_path, spec), threads=1)
    assert [second.suggest("a"), second.suggest("b")] == [given[0], given[2]]
    assert second.suggest("c")["number"] == 3


def test_a_kill_between_two_draws_loses_no_parameter(tmp_path: Path, spec: SearchSpec) -> None:
    whole = StudySearcher(SearchStudy(tmp_path / "..", spec), threads=1).suggest("a")["config"]
    study = SearchStudy(tmp_path, spec)
    study.study.sampler = build_sampler(spec.search, 0)
    spec.space["learning_rate"].suggest(study.study.ask(), "learning_rate")  # killed before time_steps
    assert StudySearcher(SearchStudy(tmp_path, spec), threads=1).suggest("a")["config"] == whole


def test_interrupted_and_whole_searches_draw_the_same_trials(tmp_path: Path, spec: SearchSpec) -> None:
    def drawn(folder: Path, restart_after: int) -> list[dict[str, Any]]:
        folder.mkdir()
        searcher = StudySearcher(SearchStudy(folder, spec), threads=1)
        params = []
        for i in range(6):
            if i == restart_after:
                searcher = StudySearcher(SearchStudy(folder, spec), threads=1)
            config = searcher.suggest(str(i))["config"]
            params.append({name: config[name] for name in spec.space})
            searcher.on_trial_complete(
                str(i), row(9, -abs(math.log10(config["learning_rate"]) + 2), **FINISHED)
            )
        return params

    whole = drawn(tmp_path / "whole", 99)
    assert whole == drawn(tmp_path / "restarted", 4)
    assert len({point["learning_rate"] for point in whole}) == 6


class FakeTrial:
    def __init__(self, number: int) -> None:
        self.trial_id, self.config = f"tune-{number}", {"number": number}


def test_rungs_after_a_resume_stop_what_they_would_have_stopped(tmp_path: Path, spec: SearchSpec) -> None:
    study = SearchStudy(tmp_path, spec)
    searcher, scheduler = StudySearcher(study, threads=1), ResumableASHA(study)
    decisions = []
    for i, value in enumerate([0.9, 0.8, 0.7, 0.95]):
        trial = FakeTrial(searcher.suggest(f"tune-{i}")["number"])
        scheduler.on_trial_add(None, trial)
        decisions.append(scheduler.on_trial_result(None, trial, row(1, value)))
        searcher.on_trial_result(trial.trial_id, row(1, value))
        if i < 3:
            searcher.on_trial_complete(trial.trial_id, row(1, value))
    assert decisions == ["CONTINUE", "STOP", "STOP", "CONTINUE"]

    resumed = ResumableASHA(SearchStudy(tmp_path, spec))
    running, new = FakeTrial(3), FakeTrial(4)
    resumed.on_trial_add(None, running)  # brings 0.95 at epoch 1 along
    resumed.on_trial_add(None, new)
    before, after = scheduler._brackets[0]._rungs, resumed._brackets[0]._rungs
    assert [(m, sorted(r.values())) for m, r in before] == [(m, sorted(r.values())) for m, r in after]
    assert resumed.on_trial_result(None, new, row(1, 0.85)) == "STOP"


def test_without_a_complete_trial_the_best_of_the_furthest_wins(tmp_path: Path, spec: SearchSpec) -> None:
    study = SearchStudy(tmp_path, spec)
    assert study.best() is None
    searcher = StudySearcher(study, threads=1)
    for name, epoch, value in (("a", 1, 0.9), ("b", 3, 0.5), ("c", 3, 0.6)):
        searcher.suggest(name)
        searcher.on_trial_complete(name, row(epoch, value))
    best = study.best()
    assert best is not None
    assert best.number == 2
