"""The search as its users run it, killed where it hurts."""

import csv
import json
import os
import signal
import subprocess
from pathlib import Path

import optuna
import pytest
import torch
import yaml

from models import build_model
from tests.commands import ROOT, SMALL, Start
from trainable.tracking import read_rows


@pytest.fixture
def space(tmp_path: Path) -> Path:
    fixed = {key: value for key, value in SMALL.items() if key != "learning_rate"}
    path = tmp_path / "tiny.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "train": {**fixed, "epochs": 6, "checkpoint_interval": 2, "dropout": 0.0},
                "space": {"learning_rate": {"type": "float", "low": 1e-3, "high": 3e-2, "log": True}},
                "search": {"num_samples": 4, "scheduler": {"grace_period": 2, "reduction_factor": 2}},
            }
        )
    )
    return path


def states(folder: Path) -> list[str]:
    journal = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    study = optuna.load_study(study_name=folder.name, storage=optuna.storages.JournalStorage(journal))
    return [trial.state.name for trial in study.trials]


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_can_be_interrupted_leaves_what_the_readme_promises_and_can_be_extended(
    tmp_path: Path, command: Start, space: Path
) -> None:
    folder = tmp_path / "runs" / "tiny"
    first = command("run_search.py", space)
    first.wait_for(lambda: len(read_rows(folder / "trial_0000")) > 1)
    first.send_signal(signal.SIGINT)
    assert "Interrupted. The same command resumes:" in first.finish(code=130)
    assert "RUNNING" in states(folder)

    output = command("run_search.py", space).finish()
    assert f"Resuming {folder}" in output
    assert "Best: trial_" in output
    assert "run_train.py" in output
    with (folder / "trials.csv").open() as file:
        trials = list(csv.DictReader(file))
    assert [t["trial"] for t in trials] == [f"trial_{i:04d}" for i in range(4)]
    complete = [t for t in trials if t["state"] == "complete"]
    assert complete
    assert all(t["epochs"] == "6" for t in complete)
    assert all(int(t["epochs"]) < 6 for t in trials if t["state"] == "pruned")
    winner = max(complete, key=lambda t: float(t["val_acc"]))
    config = json.loads((folder / "best_config.json").read_text())
    assert config["learning_rate"] == pytest.approx(float(winner["learning_rate"]))
    weights = torch.load(folder / "best.weights", weights_only=True)
    build_model(config, 10).load_state_dict(weights, strict=True)
    assert json.loads((folder / "best.weights.json").read_text())["metrics"]["val_acc"] == pytest.approx(
        float(winner["val_acc"])
    )

    rows = {i: read_rows(folder / f"trial_{i:04d}") for i in range(4)}
    command("run_search.py", space, "--trials", 5).finish()
    assert len(states(folder)) == 5
    assert {i: read_rows(folder / f"trial_{i:04d}") for i in range(4)} == rows  # nothing done again
    assert "5 of 5 trials" in command("run_search.py", space, "--status").finish()
    changed = command("run_search.py", space, "--set", "train.epochs=7").finish(code=2)
    assert "differs in train.epochs" in changed


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_killed_with_9_finds_what_one_left_alone_finds(tmp_path: Path) -> None:
    import sys

    chaos = [sys.executable, ROOT / "benchmarks" / "chaos_search.py", "--kills", "3", "--trials", "16"]
    done = subprocess.run(
        chaos, capture_output=True, text=True, timeout=400, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout + done.stderr  # it counts what was lost, repeated or left behind
    assert '3 kills ({"driver": 1, "trial": 1, "raylet": 1})' in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.cell_type=gruu"], "train.cell_type: .*'gruu'"),
        (["--set", "search.metric=accuracy"], "unknown metric 'accuracy'"),
        (["--set", "space.learning_rate.low=1"], "must not exceed high"),
        (
            ["--set", "train.dataset=ffcv", "--set", "train.dataset_path=none.beton"],
            "dataset_val_path: not given",
        ),
        (["--set", "train.pools=[true, true, true]"], "pools must be as long as filters"),
        (["--resume"], "no search here"),
    ],
)
def test_wrong_input_ends_with_2_before_ray_starts(
    tmp_path: Path, space: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    import ray

    import run_search

    assert run_search.main([str(space), "--storage", str(tmp_path / "runs"), *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not ray.is_initialized()
    assert not (tmp_path / "runs").exists()


def test_a_missing_file_is_one_line_and_2(command: Start) -> None:
    assert command("run_search.py", "nowhere.yaml").finish(code=2) == "nowhere.yaml: no such file\n"


def test_a_dry_run_prints_three_configurations_and_writes_nothing(
    tmp_path: Path, space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import run_search

    assert run_search.main([str(space), "--storage", str(tmp_path / "runs"), "--dry-run"]) == 0
    assert capsys.readouterr().out.count('"learning_rate"') == 3
    assert not (tmp_path / "runs").exists()


def test_help_shows_examples() -> None:
    import run_search
    import run_train

    for module in (run_search, run_train):
        assert "python run_" in module.EXAMPLES
        with pytest.raises(SystemExit, match="0"):
            module.main(["--help"])


@pytest.mark.parametrize("name", [".", "..", "", "a/b", "/tmp/other", "../other", "one/"])
def test_a_name_that_is_not_a_folders_own_is_refused_and_deletes_nothing(
    tmp_path: Path, space: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import run_search
    import run_train

    storage = tmp_path / "runs"
    (storage / "one").mkdir(parents=True)
    (storage / "one" / "journal.log").touch()
    (storage / "journal.log").touch()
    before = sorted(tmp_path.rglob("*"))
    for main in (run_search.main, run_train.main):
        assert main([str(space), "--storage", str(storage), "--name", name, "--fresh"]) == 2
        assert "--name: must be the name of a folder in --storage" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("options", [(), ("--fresh",), ("--status",)])
@pytest.mark.parametrize(("storage", "name"), [("file", "one"), (".", "file"), ("/proc/x", "one")])
def test_a_storage_that_is_no_folder_is_one_line_and_2(
    tmp_path: Path,
    space: Path,
    storage: str,
    name: str,
    options: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    import run_search

    (tmp_path / "file").touch()
    assert run_search.main([str(space), "--storage", str(tmp_path / storage), "--name", name, *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / storage / name) in error


def test_a_wrong_warm_start_leaves_no_search_that_the_right_one_would_differ_from(
    tmp_path: Path, space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import run_search

    arguments = [str(space), "--storage", str(tmp_path), "--set", "search.warm_start=/nowhere/old"]
    assert run_search.main(arguments) == 2
    assert capsys.readouterr().err == "search.warm_start: /nowhere/old: no search here\n"
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == [".lock"]


def test_status_writes_nothing_and_names_only_files_that_are_there(
    tmp_path: Path, space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import run_search
    from search.spec import load_spec
    from search.study import SearchStudy

    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    (folder / "journal.log").touch()  # killed before the first line
    (folder / "spec.yaml").write_text(load_spec(space, []).to_yaml())
    for option in ("--status", "--report"):
        assert run_search.main([str(space), "--storage", str(tmp_path / "runs"), option]) == 0
        assert (folder / "journal.log").read_bytes() == b""
    for path in folder.glob("*"):
        if path.name in ("trials.csv", "report.html"):
            path.unlink()
    study = SearchStudy(folder, load_spec(space, []))
    study.record(study.ask().number, {"epoch": 1, "val_acc": 0.5}, 1)
    before = (folder / "journal.log").read_bytes()
    capsys.readouterr()
    assert run_search.main([str(space), "--storage", str(tmp_path / "runs"), "--status"]) == 0
    shown = capsys.readouterr().out
    assert "Best: trial_0000, val_acc 0.5000 after 1 epochs" in shown
    for name in ("trials.csv", "best_config.json", "report.html", "best.weights"):
        assert name not in shown
    assert (folder / "journal.log").read_bytes() == before


@pytest.mark.parametrize("options", [(), ("--fresh",)])
def test_a_second_command_is_refused_and_deletes_nothing(
    tmp_path: Path, space: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    import run_search
    from search.place import Place

    folder = tmp_path / "runs" / "tiny"
    with Place(folder).claimed(print):
        (folder / "journal.log").touch()
        assert run_search.main([str(space), "--storage", str(tmp_path / "runs"), *options]) == 2
        assert capsys.readouterr().err == f"{folder}: another process is searching here\n"
        assert (folder / "journal.log").exists()
