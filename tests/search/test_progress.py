import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from rich.console import Console

from search.conductor import Conductor
from search.progress import Progress
from search.spec import SearchSpec
from search.study import SearchStudy
from tests.search.conftest import make_spec, row


def test_the_live_table_says_how_long_and_how_much() -> None:
    text = io.StringIO()
    console = Console(file=text, width=160)
    study = SearchStudy(Path("/nowhere/search"), make_spec(num_samples=3), InMemoryStorage())
    conductor = Conductor(study)
    assert [trial and trial.number for trial in (conductor.next(), conductor.next())] == [0, 1]
    progress = Progress(study, console, cpus=2, gpus=0.5)
    conductor.report(0, row(9, 0.75, finished=True))
    settings = {"learning_rate": 0.01, "time_steps": 2}
    first, second = (SimpleNamespace(config={"number": n, "config": settings}) for n in range(2))
    for trial in (first, second):
        progress.on_trial_start(0, [], trial)
    progress.on_trial_result(0, [], first, row(9, 0.75, finished=True))
    progress.on_trial_complete(0, [], first)
    console.print(progress._render())
    shown = text.getvalue()
    assert "1/3 trials done, 1 running" in shown
    assert "best 0.7500 (trial_0000, epoch 9)" in shown
    assert "left; 0.00 CPU-hours, 0.00 GPU-hours" in shown


def test_a_paused_trial_is_not_counted_as_done() -> None:
    text = io.StringIO()
    spec = make_spec(num_samples=2, scheduler={"promote": True})
    study = SearchStudy(Path("/nowhere/search"), spec, InMemoryStorage())
    conductor = Conductor(study)
    conductor.next()
    progress = Progress(study, Console(file=text, width=160))
    trial = SimpleNamespace(config={"number": 0, "config": study.config(study.trial(0)).model_dump()})
    progress.on_trial_start(0, [], trial)
    conductor.report(0, row(1, 0.5))
    progress.on_trial_result(0, [], trial, row(1, 0.5))
    progress.on_trial_complete(0, [], trial)
    assert "trial_0000  paused    epoch 1/9" in text.getvalue()
    Console(file=text, width=160).print(progress._render())
    assert "0/2 trials done, 0 running" in text.getvalue()


def test_a_trial_that_does_not_fit_reports_no_epoch_and_the_search_goes_on() -> None:
    text = io.StringIO()
    study = SearchStudy(Path("/nowhere/search"), make_spec(num_samples=2), InMemoryStorage())
    conductor = Conductor(study)
    conductor.next()
    progress = Progress(study, Console(file=text, width=160))
    trial = SimpleNamespace(config={"number": 0, "config": study.config(study.trial(0)).model_dump()})
    report = {"infeasible": "out of memory: one image needs 99 GiB"}
    progress.on_trial_start(0, [], trial)
    conductor.report(0, report)
    for _ in range(2):  # Ray repeats the last report when a trial returns
        progress.on_trial_result(0, [], trial, report)
    progress.on_trial_complete(0, [], trial)
    assert "trial_0000  infeasible  epoch 0/9  val_acc -" in text.getvalue()


@pytest.mark.parametrize("report", [{"epoch": 1}, {"epoch": 1, "val_acc": None}, {}])
def test_a_trial_that_diverged_before_it_was_validated_is_shown_as_diverged(report: dict[str, Any]) -> None:
    text = io.StringIO()
    study = SearchStudy(Path("/nowhere/search"), make_spec(num_samples=2), InMemoryStorage())
    Conductor(study).next()
    progress = Progress(study, Console(file=text, width=160))
    trial = SimpleNamespace(config={"number": 0, "config": study.config(study.trial(0)).model_dump()})
    progress.on_trial_start(0, [], trial)
    progress.on_trial_result(0, [], trial, {**report, "diverged": "nan_loss"})
    progress.on_trial_complete(0, [], trial)
    assert "trial_0000  diverged  epoch 0/9  val_acc -" in text.getvalue()


def test_what_cannot_be_shown_does_not_end_the_search() -> None:
    text = io.StringIO()
    study = SearchStudy(Path("/nowhere/search"), make_spec(num_samples=2), InMemoryStorage())
    progress = Progress(study, Console(file=text, width=160))
    stranger = SimpleNamespace(config={"number": 7, "config": {}})
    progress.on_trial_start(0, [], stranger)
    progress.on_trial_result(0, [], stranger, row(1, 0.5))
    progress.on_trial_complete(0, [], stranger)
    assert "not shown: KeyError" in text.getvalue()


def test_the_live_table_counts_and_names_the_best_as_the_search_itself_does() -> None:
    text = io.StringIO()
    console = Console(file=text, width=160, force_terminal=True)
    values = make_spec(num_samples=20).model_dump(mode="json", by_alias=True)
    values["space"]["learning_rate"] = 0.01
    values["search"]["sampler"]["type"] = "grid"
    study = SearchStudy(Path("/nowhere/search"), SearchSpec(**values), InMemoryStorage())
    conductor = Conductor(study)
    conductor.next()
    conductor.report(0, row(9, 0.5, finished=True))
    console.print(Progress(study, console)._render())  # as after a resume
    assert "1/4 trials done" in text.getvalue()
    assert "best 0.5000 (trial_0000, epoch 9)" in text.getvalue()
    text.truncate(0)
    progress = Progress(study, console)
    conductor.next()
    trial = SimpleNamespace(config={"number": 1, "config": study.config(study.trial(1)).model_dump()})
    progress.on_trial_start(0, [], trial)
    conductor.report(1, row(1, 0.9))  # it came but one epoch far
    progress.on_trial_result(0, [], trial, row(1, 0.9))
    console.print(progress._render())
    assert "best 0.5000 (trial_0000, epoch 9)" in text.getvalue()


def test_a_terminal_that_is_gone_does_not_end_the_search() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    study = SearchStudy(Path("/nowhere/search"), make_spec(num_samples=2), InMemoryStorage())
    Conductor(study).next()
    trial = SimpleNamespace(config={"number": 0, "config": study.config(study.trial(0)).model_dump()})
    for terminal in (True, False):
        progress = Progress(study, Console(file=Gone(), force_terminal=terminal))
        progress.setup()
        progress.on_trial_start(0, [], trial)
        progress.on_trial_result(0, [], trial, row(1, 0.5))
        progress.on_trial_complete(0, [], trial)
        progress.on_experiment_end([])
        progress.close()
