"""The report of a search whose trials are real recorded curves, decided upon by the real conductor."""

import csv
import html
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage
from rich.console import Console

from benchmarks.record_curves import CURVES, EPOCHS
from benchmarks.search_efficiency import search
from search.report import TRIALS_FILE, results_table, write_results
from search.report.facts import SearchFacts, read_facts
from search.report.page import FIGURES, REPORT_FILE, write_report
from search.report.results import train_command
from search.report.spaces import importance_warning, importances
from search.retention import tidy
from search.simulate import Curves
from search.spec import SPEC_FILE, SearchSpec
from search.study import SearchStudy, trial_name
from search.winner import best_trial
from tests.commands import ROOT
from tests.search.conftest import make_spec
from trainable import atomic


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SearchStudy:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    curves = Curves(CURVES, EPOCHS)
    study = search("tpe + asha", "val_acc", 7, curves, trials=60).study
    study.folder = folder
    for trial in study.trials():
        reported = {report.epoch for report in study.reports(trial.number)}
        rows = [row for row in curves.rows(study.config(trial).model_dump()) if row["epoch"] in reported]
        last = rows[-1]
        last["val_acc_t"] = [last["val_acc"] * step / study.config(trial).time_steps for step in (1, 2, 4)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        atomic.write_text(folder / trial_name(trial.number) / "result.json", text)
    atomic.write_text(folder / SPEC_FILE, study.spec.to_yaml())
    return study


@pytest.fixture(scope="module")
def facts(study: SearchStudy) -> SearchFacts:
    return read_facts(study)


def test_every_trial_has_one_fate_and_its_cost(facts: SearchFacts) -> None:
    assert sum(len(facts.of(fate)) for fate in ("complete", "pruned", "diverged")) == 60
    assert facts.of("diverged")
    for trial in facts.of("complete"):
        assert trial.epochs == EPOCHS
        assert facts.saved(trial) == 0
    stopped = facts.of("pruned")[0]
    pace = stopped.seconds / stopped.epochs
    assert facts.saved(stopped) == pytest.approx((EPOCHS - stopped.epochs) * pace)
    assert facts.best is not None
    assert facts.best.last("val_acc") == max(t.last("val_acc") for t in facts.of("complete"))


def test_the_report_is_one_file_with_every_figure_and_every_trial(study: SearchStudy) -> None:
    path = write_report(study)
    assert path.name == REPORT_FILE
    page = path.read_text()
    drawn = {path.stem for path in (study.folder / "figures").glob("*.png")}
    assert drawn == set(FIGURES) - {"pareto", "schedules"}  # one objective, no population
    assert page.count("data:image/png;base64,") == len(drawn)
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched from anywhere
    for trial in study.trials():
        command = f"{trial_name(trial.number)}/params.json --out {trial_name(trial.number)}.weights"
        assert command in html.unescape(page)
        config = json.loads((study.folder / trial_name(trial.number) / "params.json").read_text())
        assert config == study.config(trial).model_dump(mode="json")


def test_importance_of_what_decides_is_larger_and_few_trials_are_warned_about(facts: SearchFacts) -> None:
    shares = importances(facts)
    assert sum(shares.values()) == pytest.approx(1)
    count = len(facts.of("complete"))
    assert bool(importance_warning(facts)) == (count < 30)
    assert str(count) in importance_warning(facts)


def test_rungs_hold_every_trial_that_came_there(facts: SearchFacts) -> None:
    rungs = facts.scheduler.rungs  # type: ignore[attr-defined]
    assert len(rungs[0, 0]) == sum(t.epochs >= 1 for t in facts.trials if "diverged" not in t.rows[0])
    assert len(rungs[0, 1]) == sum(
        t.epochs >= 3 for t in facts.trials if t.fate != "diverged" or t.epochs > 3
    )


def test_trials_csv_has_a_line_per_trial(study: SearchStudy) -> None:
    write_results(study)
    with (study.folder / TRIALS_FILE).open() as file:
        lines = list(csv.DictReader(file))
    assert [line["trial"] for line in lines] == [trial_name(number) for number in range(60)]
    console = Console(width=200, record=True, quiet=True)
    console.print(results_table(study))
    best = best_trial(study)
    assert best is not None


def test_only_the_best_ended_trials_keep_their_checkpoints(study: SearchStudy) -> None:
    for trial in study.trials():
        folder = study.folder / trial_name(trial.number)
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "model.weights").touch()
    for trial in study.trials():  # one by one, as they end
        tidy(study, trial.number)
    kept = {
        t.number for t in study.trials() if (study.folder / trial_name(t.number) / "model.weights").exists()
    }
    complete = sorted((t for t in study.trials() if t.values), key=lambda t: (-t.values[0], t.number))
    assert kept == {trial.number for trial in complete[:5]}
    tidy(study)
    assert all((study.folder / trial_name(number) / "checkpoints").exists() for number in kept)
    assert all((study.folder / trial_name(t.number) / "result.json").exists() for t in study.trials())


def test_status_needs_neither_ray_nor_torch() -> None:
    code = (
        "import sys, run_search\n"
        "from search import report, status\n"
        "from search.spec import load_spec\n"
        "print([name for name in ('ray', 'torch', 'matplotlib') if name in sys.modules])"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.monotonic() - started < 20  # about one second on a quiet machine


def test_commands_of_the_report_train_on_as_many_workers_and_survive_a_shell(tmp_path: Path) -> None:
    spec = SearchSpec.model_validate({**make_spec().model_dump(), "resources": {"workers": 2}})
    study = SearchStudy(tmp_path / "two words", spec, InMemoryStorage())
    words = shlex.split(train_command(study, "best_config.json"))
    assert words == ["python", "run_train.py", f"{tmp_path}/two words/best_config.json", "--workers", "2"]
    alone = SearchStudy(tmp_path / "one", make_spec(), InMemoryStorage())
    assert "--workers" not in train_command(alone, "best_config.json")
