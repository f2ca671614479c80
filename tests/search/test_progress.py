import io
from pathlib import Path
from types import SimpleNamespace

from optuna.storages import InMemoryStorage
from rich.console import Console

from search.conductor import Conductor
from search.progress import Progress
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
