"""A search whose files were damaged, looked at from the command line."""

import json
from pathlib import Path

import pytest
import yaml

import run_search
from search.conductor import Conductor
from search.journal import JOURNAL_FILE, mend
from search.spec import SPEC_FILE
from search.study import SearchStudy
from tests.search.conftest import FINISHED, make_spec, row

ZEROS = b"\0" * 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A search with two complete trials and one that runs."""
    spec = make_spec(num_samples=3, scheduler={"type": "none"})
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    conductor = Conductor(SearchStudy(tmp_path / "runs" / "tiny", spec))
    for number in range(3):
        assert conductor.next() is not None
        conductor.report(number, row(1, 0.5))
        if number < 2:
            conductor.report(number, row(9, 0.5 + number / 10, **FINISHED))
    (tmp_path / "runs" / "tiny" / SPEC_FILE).write_text(spec.to_yaml())
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(yaml.safe_load(spec.to_yaml())))
    return tmp_path / "runs" / "tiny"


def look(folder: Path, action: str) -> int:
    space = folder.parent.parent / f"{folder.name}.yaml"
    return run_search.main([str(space), "--storage", str(folder.parent), action])


@pytest.mark.parametrize("action", ["--status", "--report"])
@pytest.mark.parametrize(
    "line",
    [
        ZEROS,
        b"",
        b"garbage",
        b"\xff\xfe",
        b"5",
        b"{}",
        b'{"op_code": 99, "worker_id": "x"}',
        b'{"op_code": 4, "worker_id": "x"}',
        b'{"op_code": "a"}',
        b"[" * 100_000,
    ],
    ids=["zeros", "blank", "garbage", "no UTF-8", "number", "empty", "op code", "no study", "text", "deep"],
)
def test_a_damaged_line_is_named(
    folder: Path, line: bytes, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = folder / JOURNAL_FILE
    lines = journal.read_bytes().splitlines()
    lines.insert(4, line)
    damaged = b"".join(each + b"\n" for each in lines)
    journal.write_bytes(damaged)
    assert look(folder, action) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"{journal}: line 5 is not one of a search's journal")
    assert printed.count("\n") == 1
    assert journal.read_bytes() == damaged


@pytest.mark.parametrize("rest", [ZEROS + b"\n", ZEROS, b"garbage\n", b'{"op_co', b"\xff\n", b"\n"])
def test_status_leaves_a_torn_last_line_out_and_in_its_place(
    folder: Path, rest: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = folder / JOURNAL_FILE
    torn = journal.read_bytes() + rest
    journal.write_bytes(torn)
    assert look(folder, "--status") == 0
    assert "2 of 3 trials ended (2 complete)" in capsys.readouterr().out
    assert journal.read_bytes() == torn


@pytest.mark.parametrize("rest", [b"\n", b"\n\n", ZEROS + b"\n\n", b"\n" + ZEROS + b"\n"])
def test_blank_lines_at_the_end_are_cut_off_before_anything_is_appended(folder: Path, rest: bytes) -> None:
    journal = folder / JOURNAL_FILE
    whole = journal.read_bytes()
    journal.write_bytes(whole + rest)
    mend(folder)
    assert journal.read_bytes() == whole


@pytest.mark.parametrize("action", ["--status", "--report"])
@pytest.mark.parametrize(
    "rest", [b"5\n", b"\xff\xfe\n", b'{"loss": 1}\n', b"[1]\n", b"null\n", b'{"epoch": 2}\n', b'{"epoch"']
)
def test_what_is_no_row_in_a_result_file_is_left_out(
    folder: Path, rest: bytes, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = folder / "trial_0001"
    trial.mkdir()
    (trial / "result.json").write_bytes(json.dumps(row(1, 0.5, seconds=3600)).encode() + b"\n" + rest)
    assert look(folder, action) == 0
    if action == "--status":
        assert "1.00 CPU-hours" in capsys.readouterr().out
