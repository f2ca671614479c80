"""A search whose storage is a bucket, as its users run it: killed, moved to a machine with an empty disk."""

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.bucket import Bucket
from search.spec import stored_spec
from search.study import SearchStudy, trial_name
from tests.commands import SMALL, Start, kill_all
from trainable.errors import ConfigError
from trainable.lease import Lease, Terms
from trainable.remote import Remote
from trainable.tracking import read_rows

EPOCHS, INTERVAL = 8, 2


@pytest.fixture
def space(tmp_path: Path) -> Path:
    fixed = {key: value for key, value in SMALL.items() if key != "learning_rate"}
    path = tmp_path / "tiny.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "train": {**fixed, "epochs": EPOCHS, "checkpoint_interval": INTERVAL},
                "space": {"learning_rate": {"type": "float", "low": 1e-3, "high": 3e-2, "log": True}},
                "search": {
                    "num_samples": 3,
                    "keep_checkpoints": 1,
                    "confirm": {"top": 1, "seeds": 1},
                    "scheduler": {"grace_period": 2, "reduction_factor": 2},
                },
                "resources": {"concurrent_trials": 1, "cpus_per_worker": 1},
            }
        )
    )
    return path


def results(study: SearchStudy) -> list[Any]:
    """What two searches with one seed have in common."""
    rows = [read_rows(study.folder / trial_name(trial.number)) for trial in study.trials()]
    return [
        (trial.params, trial.state, trial.values, trial.intermediate_values, [row["val_loss"] for row in its])
        for trial, its in zip(study.trials(), rows, strict=True)
    ]


def opened(place: Any) -> SearchStudy:
    place.read()
    return SearchStudy(place.folder, stored_spec(place.folder), place=place)


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_killed_on_one_machine_ends_on_another_as_if_nothing_had_been(
    tmp_path: Path,
    command: Start,
    space: Path,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RECURRENT_VISION_SCRATCH", str(tmp_path / "one"))
    alone = command("run_search.py", space)
    first = command("run_search.py", space, "--storage", bucket)
    remote = Remote(bucket).child("tiny")

    def stored(number: int) -> int:
        return len((remote.read(f"{trial_name(number)}/result.json") or b"").splitlines())

    first.wait_for(lambda: stored(1) >= 1)
    kill_all(first)
    before = opened(Bucket(remote, tmp_path / "before" / "tiny"))
    rows = {t.number: read_rows(before.folder / trial_name(t.number)) for t in before.trials()}
    assert before.unfinished()
    for trial in before.trials():
        told = [report.epoch for report in before.reports(trial.number)]
        kept = [row["epoch"] for row in rows[trial.number]]
        assert kept[: len(told)] == told  # what the search was told of is there
    alone.finish()

    shutil.rmtree(tmp_path / "one")
    monkeypatch.setenv("RECURRENT_VISION_SCRATCH", str(tmp_path / "two"))
    output = command("run_search.py", space, "--storage", bucket).finish()
    assert f"Resuming {bucket}/tiny" in output
    assert f"{bucket}/tiny/best_config.json" in output
    place = Bucket(remote, tmp_path / "after" / "tiny")
    after = opened(place)
    assert results(after) == results(SearchStudy(tmp_path / "runs/tiny", stored_spec(tmp_path / "runs/tiny")))
    for trial in before.finished():  # nothing is done again: not a number changed, not even the seconds
        assert read_rows(after.folder / trial_name(trial.number)) == rows[trial.number]
    for trial in before.unfinished():
        old, new = rows[trial.number], read_rows(after.folder / trial_name(trial.number))
        same = [a == b for a, b in zip(old, new, strict=False)]
        assert sum(same) >= len(old) - INTERVAL  # went on from a checkpoint at most so far behind

    # In the bucket lies what lies in a folder, and no checkpoint of a trial beyond `keep_checkpoints`.
    names = set(remote.entries())
    for name in ("report.html", "figures/history.png", "best_config.json", "best.weights", "spec.yaml"):
        assert name in names
    with_checkpoints = {name.partition("/")[0] for name in names if re.match(r"trial_\d+/checkpoints/", name)}
    assert len(with_checkpoints) == 1
    assert "confirmed/trials.csv" in names
    assert ".lease" not in names
    with (place.folder / "trials.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    assert not list((tmp_path / "two").glob("*/tiny"))  # nothing is left behind here
    assert run(space, "--storage", bucket, "--status") == 0
    assert f"{bucket}/tiny: done" in capsys.readouterr().out


def run(*arguments: object) -> int:
    import run_search

    return run_search.main([str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("s3://nobucket/x", r"s3://nobucket/x/tiny: there is no bucket nobucket\n"),
        (
            "s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http",
            "s3://bucket/x/tiny: cannot be reached: .*connect.*\n",
        ),
        ("gs://bucket/x", r"gs://bucket/x: must be a folder, or s3://BUCKET/FOLDER\n"),
        ("s3://key:secret@bucket", r"s3://bucket: credentials come from the environment or ~/.aws\n"),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_cannot_be_used_is_one_line_and_2(
    space: Path, storage: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(space, "--storage", storage) == 2
    assert re.fullmatch(message, capsys.readouterr().err)


def test_two_commands_at_once_are_refused_and_none_deletes_the_others_search(
    space: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    remote = Remote(bucket).child("tiny")
    remote.write("journal/000000.log", b"")
    lease = Lease(remote, Terms(renew=0.5))
    lease.acquire(print)
    try:
        for option in ((), ("--fresh",)):
            assert run(space, "--storage", bucket, *option) == 2
            assert "another process is searching here: process" in capsys.readouterr().err
        assert "journal/000000.log" in remote.entries()
    finally:
        lease.release()


def test_starting_over_in_a_bucket_leaves_alone_what_is_no_search(bucket: str, tmp_path: Path) -> None:
    remote = Remote(bucket).child("photos")
    remote.write("cat.jpg", b"x")
    with pytest.raises(ConfigError, match="photos: holds no search"):
        Bucket(remote, tmp_path).claimed(print, fresh=True).__enter__()
    assert "cat.jpg" in remote.entries()
    remote.write("journal/000000.log", b"")
    with Bucket(remote, tmp_path).claimed(print, fresh=True):
        assert set(remote.entries()) == {".lease"}
