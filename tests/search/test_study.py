import io
import json
import math
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from rich.console import Console

from search.conductor import Conductor
from search.journal import mend
from search.report import print_results
from search.report.facts import read_facts
from search.sampler import build_sampler
from search.schedulers import Decision
from search.spec import SearchSpec
from search.study import SearchStudy, cause
from search.winner import best_trial, pareto_front
from tests.search.conftest import FINISHED, make_spec, row


def start(conductor: Conductor) -> int:
    trial = conductor.next()
    assert trial is not None
    return trial.number


def test_only_a_trial_that_ran_to_its_end_is_complete(tmp_path: Path) -> None:
    spec = make_spec(scheduler={"type": "median", "min_trials": 1}, max_failures=0)
    study = SearchStudy(tmp_path, spec)
    conductor = Conductor(study)
    done, stopped, nan, crashed, running = (start(conductor) for _ in range(5))
    conductor.report(done, row(1, 0.6))
    assert conductor.report(stopped, row(1, 0.5)) is Decision.STOP
    conductor.report(done, row(9, 0.4, **FINISHED))
    conductor.report(nan, row(1, math.nan, diverged="nan_loss"))
    conductor.crashed(crashed, "RuntimeError: boom", "the last\nlines")
    conductor.report(running, row(1, 0.95))
    again = SearchStudy(tmp_path, spec)
    assert [trial.state.name for trial in again.trials()] == [
        "COMPLETE",
        "PRUNED",
        "FAIL",
        "FAIL",
        "RUNNING",
    ]
    assert again.trial(done).intermediate_values == {1: 0.6, 9: 0.4}
    assert again.trial(nan).user_attrs["cause"] == "nan_loss"
    assert again.trial(crashed).user_attrs == {"cause": "RuntimeError: boom", "log": "the last\nlines"}
    best = best_trial(again)
    assert best is not None
    assert best.number == done  # 0.95 after one epoch does not beat 0.4 after nine


def test_a_nan_metric_without_a_word_is_a_diverged_trial(tmp_path: Path, spec: SearchSpec) -> None:
    study = SearchStudy(tmp_path, spec)
    conductor = Conductor(study)
    conductor.report(start(conductor), row(1, math.nan))
    assert [trial.state for trial in study.trials()] == [TrialState.FAIL]
    assert best_trial(study) is None


@pytest.mark.parametrize("report", [{"epoch": 1}, {"epoch": 1, "val_acc": None}, {}])
def test_a_trial_that_diverged_before_it_was_validated_has_failed(
    tmp_path: Path, spec: SearchSpec, report: dict[str, Any]
) -> None:
    study = SearchStudy(tmp_path, spec)
    conductor = Conductor(study)
    assert conductor.report(number := start(conductor), report) is Decision.CONTINUE
    assert study.trial(number).state == TrialState.RUNNING  # a report without the metric is no end
    conductor.report(number, {**report, "diverged": "exploding_state"})
    assert study.trial(number).state == TrialState.FAIL


def test_without_a_complete_trial_the_best_of_those_that_spent_most_wins(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, make_spec(scheduler={"type": "none"}))
    assert best_trial(study) is None
    conductor = Conductor(study)
    for epoch, value in ((1, 0.9), (3, 0.5), (3, 0.6)):
        conductor.report(start(conductor), row(epoch, value))
    best = best_trial(study)
    assert best is not None
    assert (best.number, study.spent(best)) == (2, 3)


@pytest.mark.parametrize("scheduler", [{"type": "none"}, {"type": "asha", "grace_period": 2}])
def test_without_a_complete_trial_a_moment_more_does_not_win(
    tmp_path: Path, scheduler: dict[str, Any]
) -> None:
    study = SearchStudy(tmp_path, make_spec(scheduler={"resource": "seconds", **scheduler}))
    conductor = Conductor(study)
    good, late, early = start(conductor), start(conductor), start(conductor)
    for epoch in (1, 2, 3, 4, 5, 6):
        conductor.report(good, row(epoch, 0.9 - 0.01 * epoch, seconds=1.1))
        conductor.report(late, row(epoch, 0.1, seconds=1.10001))
    conductor.report(early, row(1, 0.95, seconds=1.9))  # below the first rung
    best = best_trial(study)
    assert best is not None
    assert best.number == good
    text = io.StringIO()
    print_results(study, Console(file=text, width=200))
    assert "Best: trial_0000, val_acc 0.8400 after 6 epochs (6.6 seconds): " in text.getvalue()


def test_without_a_complete_trial_those_at_a_rung_are_compared_by_their_values_there(tmp_path: Path) -> None:
    spec = make_spec(scheduler={"type": "asha", "resource": "image_steps", "grace_period": 100})
    study = SearchStudy(tmp_path, spec)
    for number, reports in enumerate(
        [
            [(100, 0.3), (320, 0.5), (800, 0.7)],  # rungs lie at 100, 300, 900
            [(310, 0.6)],
            [(150, 0.9)],
        ]
    ):
        study.ask()
        for epoch, (steps, value) in enumerate(reports, 1):
            study.record(number, row(epoch, value), steps)
    best = best_trial(study)
    assert best is not None
    assert best.number == 1


def test_a_resumed_search_hands_out_the_unfinished_trials_first(tmp_path: Path, spec: SearchSpec) -> None:
    first = Conductor(SearchStudy(tmp_path, spec))
    given = [first.next() for _ in range(3)]
    first.report(1, row(9, 0.5, **FINISHED))
    second = Conductor(SearchStudy(tmp_path, spec))
    taken_up = [second.next() for _ in range(3)]
    assert [t and t.params for t in taken_up[:2]] == [
        given[0] and given[0].params,
        given[2] and given[2].params,
    ]
    assert taken_up[2] is not None
    assert taken_up[2].number == 3


def test_a_kill_between_two_draws_loses_no_parameter(tmp_path: Path, spec: SearchSpec) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = Conductor(SearchStudy(tmp_path / "whole", spec)).next()
    study = SearchStudy(tmp_path / "killed", spec)
    study.study.sampler = build_sampler(spec, 0)
    spec.space["learning_rate"].suggest(study.study.ask(), "learning_rate")  # killed before time_steps
    resumed = Conductor(SearchStudy(tmp_path / "killed", spec)).next()
    assert whole is not None
    assert resumed is not None
    assert resumed.params == whole.params


def test_a_decision_that_a_kill_cut_off_is_taken_at_the_restart(tmp_path: Path, spec: SearchSpec) -> None:
    study = SearchStudy(tmp_path, spec)
    conductor = Conductor(study)
    for _ in range(2):
        start(conductor)
    conductor.report(0, row(1, 0.9))
    study.record(1, row(1, 0.1), 1.0)  # killed after the report was kept, before the trial was stopped
    study = SearchStudy(tmp_path, spec)
    conductor = Conductor(study)
    assert [trial.state.name for trial in study.trials()] == ["RUNNING", "PRUNED"]
    assert study.trial(1).intermediate_values == {1: 0.1}
    assert start(conductor) == 0


def test_rungs_after_a_resume_are_those_before(tmp_path: Path) -> None:
    spec = make_spec(scheduler={"brackets": 2, "reduction_factor": 2})
    conductor = Conductor(SearchStudy(tmp_path, spec))
    for index in range(8):
        number = start(conductor)
        for epoch in range(1, 1 + index):
            if conductor.report(number, row(epoch, math.sin(7.0 * index + epoch))) is Decision.STOP:
                break
    resumed = Conductor(SearchStudy(tmp_path, spec))
    before, after = conductor.scheduler, resumed.scheduler
    assert len(before.rungs) > 3  # type: ignore[attr-defined]
    assert before.rungs == after.rungs  # type: ignore[attr-defined]


def drive(folder: Path, spec: SearchSpec, restart_every: int = 0) -> list[tuple[Any, ...]]:
    """Run a whole made-up search one trial at a time, starting over from the journal now and then."""
    folder.mkdir(exist_ok=True)
    conductor, reports = Conductor(SearchStudy(folder, spec)), 0
    while (trial := conductor.next()) is not None:
        done = conductor.study.reports(trial.number)
        epoch, decision = (done[-1].epoch if done else 0), Decision.CONTINUE
        while decision is Decision.CONTINUE and not conductor.study.trial(trial.number).state.is_finished():
            epoch += 1
            value = -abs(math.log10(trial.params["learning_rate"]) + 2) - 1 / (
                epoch * trial.params["time_steps"]
            )
            decision = conductor.report(trial.number, row(epoch, value, **(FINISHED if epoch == 9 else {})))
            reports += 1
            if restart_every and reports % restart_every == 0:
                conductor = Conductor(SearchStudy(folder, spec))
                break
    study = SearchStudy(folder, spec)
    return [(t.params, t.state, t.intermediate_values) for t in study.trials()]


@pytest.mark.parametrize("kind", ["asha", "promote", "hyperband", "median", "none"])
def test_interrupted_and_whole_searches_have_the_same_trials_and_curves(tmp_path: Path, kind: str) -> None:
    scheduler = {"type": "asha", "promote": True} if kind == "promote" else {"type": kind}
    spec = make_spec(num_samples=12, scheduler=scheduler)
    whole = drive(tmp_path / "whole", spec)
    assert len(whole) == 12
    assert all(state.is_finished() for _, state, _ in whole)
    assert any(state == TrialState.COMPLETE for _, state, _ in whole)
    assert whole == drive(tmp_path / "restarted", spec, restart_every=5)


def test_a_finished_search_can_be_extended(tmp_path: Path) -> None:
    first = drive(tmp_path / "s", make_spec(num_samples=4))
    longer = drive(tmp_path / "s", make_spec(num_samples=7))
    assert longer[:4] == first
    assert longer == drive(tmp_path / "at_once", make_spec(num_samples=7))


def _ask_for_ever(folder: Path, spec: SearchSpec) -> None:
    conductor = Conductor(SearchStudy(folder, spec))
    while True:
        trial = conductor.next()
        assert trial is not None
        conductor.report(trial.number, row(9, 0.5, **FINISHED))


def test_a_writer_killed_with_9_leaves_a_journal_that_can_be_mended(tmp_path: Path) -> None:
    spec = make_spec(num_samples=10**6, sampler={"type": "random"})
    context, seen = multiprocessing.get_context("fork"), 0
    for attempt in range(8):
        process = context.Process(target=_ask_for_ever, args=(tmp_path, spec))
        process.start()
        time.sleep(0.15 + 0.013 * attempt)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        mend(tmp_path)
        started = time.monotonic()
        trials = SearchStudy(tmp_path, spec).trials()
        assert time.monotonic() - started < 5  # a lock left behind would cost 30 s at the first write
        assert len(trials) >= seen
        assert sum(not trial.state.is_finished() for trial in trials) <= 1
        seen = len(trials)
    assert seen > 8


@pytest.mark.parametrize("rest", [b'{"op_code":4,"wor', b"\0\0\0\0", b"\0\0\0\n", b"x" * 100])
def test_a_torn_last_line_is_cut_off_and_nothing_else(tmp_path: Path, spec: SearchSpec, rest: bytes) -> None:
    conductor = Conductor(SearchStudy(tmp_path, spec))
    for _ in range(3):
        start(conductor)
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + rest)
    (tmp_path / "journal.log.lock").symlink_to(journal)
    mend(tmp_path)
    assert journal.read_bytes() == whole
    assert len(SearchStudy(tmp_path, spec).trials()) == 3
    assert start(Conductor(SearchStudy(tmp_path, spec))) == 0
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_a_crashed_trial_is_tried_again_and_then_failed_with_its_cause(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, make_spec(max_failures=1))
    conductor = Conductor(study)
    number = start(conductor)
    assert conductor.crashed(number, "timeout: no report for 5 s")
    conductor = Conductor(study := SearchStudy(tmp_path, study.spec))  # the count survives a restart
    assert start(conductor) == number
    assert not conductor.crashed(number, "ValueError: boom", "log")
    assert study.trial(number).state == TrialState.FAIL
    assert study.failures(number) == ["timeout: no report for 5 s", "ValueError: boom"]
    assert start(conductor) == number + 1


def test_an_infeasible_trial_is_pruned_and_breaks_a_constraint(tmp_path: Path, spec: SearchSpec) -> None:
    study = SearchStudy(tmp_path, spec)
    conductor = Conductor(study)
    conductor.report(start(conductor), {"infeasible": "out of memory: 3 GiB"})
    conductor.report(start(conductor), row(9, 0.1, **FINISHED))
    trials = study.trials()
    assert [trial.state for trial in trials] == [TrialState.PRUNED, TrialState.COMPLETE]
    assert [trial.constraints for trial in trials] == [{"usable": 1.0}, {}]
    best = best_trial(study)
    assert best is not None
    assert best.number == 1


@pytest.mark.parametrize(("option", "constraint"), [("fail", {}), ("worst", {"usable": 1.0})])
def test_what_the_sampler_hears_of_a_diverged_trial(tmp_path: Path, option: str, constraint: Any) -> None:
    study = SearchStudy(tmp_path, make_spec(diverged=option))
    conductor = Conductor(study)
    conductor.report(start(conductor), row(1, math.nan, diverged="exploding_state"))
    trial = study.trial(0)
    assert trial.state == (TrialState.FAIL if option == "fail" else TrialState.PRUNED)
    assert trial.constraints == constraint
    assert trial.user_attrs["cause"] == "exploding_state"
    assert best_trial(study) is None


def test_several_objectives_make_a_front(tmp_path: Path) -> None:
    spec = make_spec(metric=["val_acc", "val_loss"], scheduler={"type": "none"}, num_samples=4)
    study = SearchStudy(tmp_path, spec)
    conductor = Conductor(study)
    for accuracy, loss in ((0.9, 0.5), (0.8, 0.1), (0.7, 0.3), (0.9, 0.6)):
        conductor.report(start(conductor), row(9, accuracy, val_loss=loss, **FINISHED))
    assert [trial.number for trial in pareto_front(study)] == [0, 1]
    assert {t.number for t in study.study.best_trials} == {0, 1}  # Optuna agrees
    assert SearchStudy(tmp_path, spec).reports(1)[0].values == (0.8, 0.1)


def test_a_second_objective_may_come_with_the_last_report_only(tmp_path: Path) -> None:
    spec = make_spec(metric=["val_acc", "val_acc_2t"])
    study = SearchStudy(tmp_path, spec)
    conductor = Conductor(study)
    first = start(conductor)
    assert conductor.report(first, row(1, 0.8)) == Decision.CONTINUE
    assert conductor.report(start(conductor), row(1, 0.1)) == Decision.STOP
    conductor.report(first, row(9, 0.9, val_acc_2t=0.7, **FINISHED))
    assert study.trial(first).values == [0.9, 0.7]
    again = SearchStudy(tmp_path, spec)
    assert math.isnan(again.reports(first)[0].values[1])
    assert Conductor(again).scheduler.report(2, 1, 0.1) == Decision.STOP  # the rung is there after a resume


def test_results_of_several_objectives_name_the_front_and_every_value(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, make_spec(metric=["val_acc", "val_acc_2t"], num_samples=3))
    conductor = Conductor(study)
    first = start(conductor)
    conductor.report(first, row(1, 0.8))
    conductor.report(start(conductor), row(1, 0.1))
    conductor.report(first, row(9, 0.9, val_acc_2t=0.7125, **FINISHED))
    console = Console(record=True, width=160, file=io.StringIO())
    print_results(study, console)
    text = console.export_text()
    assert "trial_0000, val_acc 0.9000 after 9 epochs" in text
    assert "0.7125" in text
    assert "trial_0001 │ pruned" in text
    assert "than: trial_0000 (Pareto front)" in text


def test_several_objectives_are_stopped_by_the_first(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, make_spec(metric=["val_acc", "val_loss"]))
    conductor = Conductor(study)
    decisions = [
        conductor.report(start(conductor), row(1, accuracy, val_loss=loss))
        for accuracy, loss in ((0.9, 0.5), (0.1, 0.01))
    ]
    assert decisions == [Decision.CONTINUE, Decision.STOP]
    assert study.trial(1).state == TrialState.PRUNED


@pytest.mark.parametrize(
    ("resource", "spent"), [("epoch", 2.0), ("images", 300.0), ("image_steps", 600.0), ("seconds", 0.75)]
)
def test_what_a_trial_has_spent_is_counted_in_the_unit_of_the_spec(
    tmp_path: Path, resource: str, spent: float
) -> None:
    spec = make_spec(
        scheduler={"resource": resource, "grace_period": 1, "max_resource": 10**6},
        points_to_evaluate=[{"time_steps": 2}],
    )
    study = SearchStudy(tmp_path, spec)
    conductor = Conductor(study)
    number = start(conductor)
    conductor.report(number, row(1, 0.5, image_steps=300, seconds=0.5))
    conductor.report(number, row(2, 0.5, image_steps=600, seconds=0.25))
    assert study.spent(study.trial(number)) == spent


def test_a_trial_is_complete_at_max_resource(tmp_path: Path) -> None:
    spec = make_spec(scheduler={"type": "none", "resource": "image_steps", "max_resource": 500})
    study = SearchStudy(tmp_path, spec)
    conductor = Conductor(study)
    number = start(conductor)
    assert conductor.report(number, row(1, 0.5, image_steps=300)) is Decision.CONTINUE
    assert conductor.report(number, row(2, 0.6, image_steps=600)) is Decision.STOP
    assert study.trial(number).state == TrialState.COMPLETE


def test_a_journal_is_what_optuna_itself_opens(tmp_path: Path, spec: SearchSpec) -> None:
    drive(tmp_path, make_spec(num_samples=3))
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    )
    study = optuna.load_study(study_name=tmp_path.name, storage=storage)
    assert len(study.trials) == 3
    assert study.metric_names == ["val_acc"]
    assert study.best_trial.value == max(t.value for t in study.trials if t.state == TrialState.COMPLETE)


def test_a_trial_whose_settings_exclude_each_other_ends_and_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(num_samples=3)
    build = SearchSpec.config

    def config(self: SearchSpec, params: dict[str, Any]) -> Any:
        return build(self, {**params, "time_steps": 2.5} if params == wrong else params)

    wrong = SearchStudy(Path("/nowhere"), spec, InMemoryStorage()).ask().params  # the first trial's
    monkeypatch.setattr(SearchSpec, "config", config)
    SearchStudy(tmp_path, spec).ask()  # a driver died of it here, before
    study = SearchStudy(tmp_path, spec)
    conductor = Conductor(study)
    assert start(conductor) == 1
    assert study.trial(0).state == TrialState.PRUNED
    assert study.trial(0).constraints == {"usable": 1.0}
    assert cause(study.trial(0)).startswith("invalid configuration: time_steps: ")
    conductor.report(1, row(9, 0.5, finished=True))
    assert start(conductor) == 2
    best = best_trial(study)
    assert best is not None
    assert best.number == 1
    assert len(read_facts(study).trials) == 3
