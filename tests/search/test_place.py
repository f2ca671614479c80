"""The folder a search lies in."""

import contextlib
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.place import Place
from search.runner import check_same_search
from search.spec import SPEC_FILE, SearchSpec
from search.storage import open_place
from search.study import SearchStudy
from tests.search.conftest import make_spec
from trainable.errors import ConfigError


def test_deleting_what_a_stopped_trial_still_writes_into_is_no_error(tmp_path: Path) -> None:
    stop = threading.Event()
    folder = tmp_path / "trial_0000" / "checkpoints"

    def write() -> None:
        while not stop.is_set():
            for number in range(20):
                with contextlib.suppress(OSError):  # deleted in between
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / f"{number}.pt").touch()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(500):
            Place(tmp_path).delete(["trial_0000/checkpoints", "trial_0000/model.weights"])
    finally:
        stop.set()
        writer.join()
    Place(tmp_path).delete(["trial_0000/checkpoints"])
    assert not folder.exists()


def searched(folder: Path) -> Path:
    """A folder as a search leaves it, in short."""
    (folder / "trial_0000" / "checkpoints").mkdir(parents=True)
    for name in ("journal.log", "spec.yaml", "trial_0000/result.json"):
        (folder / name).touch()
    return folder


def test_starting_over_deletes_nothing_while_another_process_searches(tmp_path: Path) -> None:
    folder = searched(tmp_path / "one")
    with Place(folder).claimed(print):
        before = sorted(folder.rglob("*"))
        second = Place(folder).claimed(print, fresh=True)
        with pytest.raises(ConfigError, match="one: another process is searching here"):
            second.__enter__()
        assert sorted(folder.rglob("*")) == before


def test_starting_over_leaves_nothing_and_nobody_else_gets_in(tmp_path: Path) -> None:
    folder = searched(tmp_path / "one")
    with Place(folder).claimed(print, fresh=True):
        assert [path.name for path in folder.iterdir()] == [".lock"]
        assert Place(folder).is_running()


def test_starting_over_leaves_a_folder_alone_that_holds_no_search(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(ConfigError, match="photos: holds no search, but other files"):
        Place(tmp_path / "photos").claimed(print, fresh=True).__enter__()
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def test_what_a_kill_half_way_through_starting_over_left_can_be_deleted(tmp_path: Path) -> None:
    folder = searched(tmp_path / "one")
    (folder / "journal.log").unlink()
    with Place(folder).claimed(print, fresh=True):
        assert not (folder / "spec.yaml").exists()


@pytest.mark.parametrize("storage", ["s3:/bucket/runs", "gs:/bucket", "gs://bucket", "s3://"])
def test_what_looks_like_a_bucket_is_never_a_folder_on_this_machine(storage: str) -> None:
    with pytest.raises(ConfigError, match=f"{storage}: must be a folder, or s3://BUCKET/FOLDER"):
        open_place(storage, "name")


def test_a_folder_that_cannot_be_one_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, reason in (
        (tmp_path / "file", "File exists|Not a directory"),
        (tmp_path / "file" / "one", "Not a directory"),
        (Path("/proc/x/one"), "No such file or directory"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        for fresh in (False, True):
            with pytest.raises(ConfigError, match=f"cannot hold a search: .*({reason})"):
                Place(folder).claimed(print, fresh=fresh).__enter__()


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({}, ""),
        ({"train": {"activation": "relu", "label_smoothing": 0.0}}, ""),  # the defaults
        ({"train": {"wb_group": "thesis", "keep_checkpoints": 5}}, ""),
        ({"search": {"num_samples": 99, "trial_timeout": 60}}, ""),
        ({"train": {"activation": "elu"}}, "train.activation"),
        ({"train": {"epochs": 10}}, "train.epochs"),
        ({"search": {"seed": 5}}, "search.seed"),
        ({"space": {"time_steps": {"type": "int", "low": 1, "high": 5}}}, "space.time_steps"),
        ({"space": {"dropout": {"type": "float", "low": 0.0, "high": 0.5}}}, "space.dropout, train.dropout"),
    ],
)
def test_a_search_goes_on_where_what_decides_over_its_results_is_the_same(
    tmp_path: Path, change: dict[str, dict[str, Any]], differs: str
) -> None:
    spec = make_spec()
    SearchStudy(tmp_path, spec)
    (tmp_path / SPEC_FILE).write_text(spec.to_yaml())
    stored = yaml.safe_load(spec.to_yaml())
    parts = {part: {**values, **change.get(part, {})} for part, values in stored.items()}
    for key in parts["train"].keys() & parts["space"].keys():
        del parts["train"][key]
    other = SearchSpec(**parts)
    if not differs:
        check_same_search(other, Place(tmp_path))
        return
    with pytest.raises(ConfigError, match=f"holds a search that differs in {re.escape(differs)}; give"):
        check_same_search(other, Place(tmp_path))
