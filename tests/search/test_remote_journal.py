"""The journal in a bucket beside the journal in a file."""

import math
from pathlib import Path

import pytest
from optuna.storages import JournalStorage

from search.bucket import Bucket
from search.conductor import Conductor
from search.journal import JOURNAL_FILE, open_journal
from search.remote_journal import RemoteJournal, fetch_journal
from search.runner import warm_start
from search.spec import SPEC_FILE, SearchSpec, stored_spec
from search.study import SearchStudy
from tests.search.conftest import FINISHED, make_spec, row
from trainable import atomic
from trainable.atomic import StorageError
from trainable.errors import ConfigError
from trainable.lease import Lease, LeaseLost, Terms
from trainable.remote import Remote


def steps(study: SearchStudy) -> None:
    """Nine trials more: some end, some are stopped, one crashes, one diverges, others are left running."""
    conductor = Conductor(study)
    for index in range(9):
        trial = conductor.next()
        assert trial is not None
        number = trial.number
        conductor.report(number, row(1, 0.1 * index))
        if index % 3 == 0:
            conductor.report(number, row(9, 0.5, **FINISHED))
        elif index == 4:
            conductor.crashed(number, "RuntimeError: boom", "the last\nlines")
        elif index == 5:
            conductor.report(number, row(2, math.nan, diverged="nan_loss"))


def history(study: SearchStudy) -> list[str]:
    """All that can be known of a search, but for the times; as text, in which nan equals nan."""
    trials = [
        (t.number, t.state, t.values, t.params, t.intermediate_values, t.user_attrs, t.system_attrs)
        for t in study.trials()
    ]
    return [repr(item) for item in [*trials, *study.events()]]


def journal(remote: Remote, file: Path) -> JournalStorage:
    fetch_journal(remote, "", file)
    return JournalStorage(RemoteJournal(file, remote, segment_bytes=2000))


@pytest.fixture
def spec() -> SearchSpec:
    return make_spec(max_failures=0, scheduler={"grace_period": 1, "reduction_factor": 3})


def test_a_search_in_a_bucket_is_the_one_in_a_file(bucket: str, tmp_path: Path, spec: SearchSpec) -> None:
    remote, name = Remote(bucket), "search"
    in_file = SearchStudy(tmp_path / "disk" / name, spec, open_journal(_made(tmp_path / "disk" / name)))
    in_bucket = SearchStudy(tmp_path / name, spec, journal(remote, tmp_path / name / JOURNAL_FILE))
    steps(in_file)
    steps(in_bucket)
    assert history(in_bucket) == history(in_file)

    # Its writer is gone and so is its disk: every step is there, and it goes on the same way.
    again = SearchStudy(tmp_path / "b" / name, spec, journal(remote, tmp_path / "b" / name / JOURNAL_FILE))
    assert history(again) == history(in_bucket)
    segments = sorted(remote.entries("journal"))
    assert segments == [f"journal/{number:06d}.log" for number in range(len(segments))]
    assert len(segments) > 3
    steps(in_file)
    steps(again)
    assert history(again) == history(in_file)
    third = SearchStudy(tmp_path / "c" / name, spec, journal(remote, tmp_path / "c" / name / JOURNAL_FILE))
    assert history(third) == history(in_file)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_a_step_that_cannot_be_stored_is_not_taken(bucket: str, tmp_path: Path, spec: SearchSpec) -> None:
    def lost() -> None:
        raise LeaseLost("taken over by another")

    remote, file = Remote(bucket), tmp_path / "search" / JOURNAL_FILE
    study = SearchStudy(file.parent, spec, journal(remote, file))
    steps(study)
    before, size = history(study), file.stat().st_size
    study.storage._backend._check = lost  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="taken over"):
        study.note(0, "promote")
    assert file.stat().st_size == size
    again = SearchStudy(
        tmp_path / "b" / "search", spec, journal(remote, tmp_path / "b" / "search" / JOURNAL_FILE)
    )
    assert history(again) == before


def test_a_gap_in_the_journal_is_an_error_and_not_a_shorter_search(
    bucket: str, tmp_path: Path, spec: SearchSpec
) -> None:
    remote, file = Remote(bucket), tmp_path / "search" / JOURNAL_FILE
    steps(SearchStudy(file.parent, spec, journal(remote, file)))
    remote.delete("journal/000001.log")
    with pytest.raises(StorageError, match="000001.log: is missing"):
        fetch_journal(remote, "", file)


def test_only_named_files_of_a_trial_are_deleted(bucket: str, tmp_path: Path) -> None:
    place = Bucket(Remote(bucket), tmp_path)
    for number in range(6):
        for name in (
            "checkpoints/epoch_0001.pt",
            "checkpoints/epoch_0001.json",
            "model.weights",
            "result.json",
        ):
            place.remote.write(f"trial_{number:04d}/{name}", b"1")
    place.delete(
        f"trial_{number:04d}/{name}" for number in range(4) for name in ("checkpoints", "model.weights")
    )
    place.delete(["trial_0004/checkpoints"])
    left = sorted(place.remote.entries())
    assert left == sorted(
        [f"trial_{number:04d}/result.json" for number in range(6)]
        + ["trial_0004/model.weights", "trial_0005/model.weights"]
        + [f"trial_0005/checkpoints/epoch_0001.{kind}" for kind in ("pt", "json")]
    )


def test_a_server_away_for_a_moment_is_waited_for(bucket: str, tmp_path: Path, spec: SearchSpec) -> None:
    absences = [StorageError("cannot be reached")] * 2

    def check() -> None:
        if absences:
            raise absences.pop()

    study = SearchStudy(
        tmp_path / "search",
        spec,
        JournalStorage(RemoteJournal(tmp_path / "search" / JOURNAL_FILE, Remote(bucket), check)),
    )
    steps(study)
    copy = tmp_path / "b" / "search" / JOURNAL_FILE
    again = SearchStudy(copy.parent, spec, journal(Remote(bucket), copy))
    assert history(again) == history(study)
    assert not absences


def test_a_confirmation_that_grew_keeps_its_new_spec(bucket: str, tmp_path: Path, spec: SearchSpec) -> None:
    place = Bucket(Remote(bucket), tmp_path / "search", Lease(Remote(bucket), Terms(settle=0.0)))
    with place.claimed(print):
        child = place.child("confirmed")
        for samples in (3, 6):
            text = make_spec(num_samples=samples).to_yaml()
            atomic.write_text(child.folder / SPEC_FILE, text)
            child.push()
            with child.claimed(print):
                assert (child.folder / SPEC_FILE).read_text() == text
    assert place.remote.read(f"confirmed/{SPEC_FILE}") == text.encode()
    assert place.remote.read(".lease") is None


def test_a_search_learns_from_one_in_a_bucket(bucket: str, tmp_path: Path, spec: SearchSpec) -> None:
    place = Bucket(Remote(bucket).child("old"), tmp_path / "old", Lease(Remote(bucket), Terms(settle=0.0)))
    with place.claimed(print):
        atomic.write_text(place.folder / SPEC_FILE, spec.to_yaml())
        old = SearchStudy(place.folder, spec, place=place)
        steps(old)
    address = f"{bucket}/old"
    new = SearchStudy(_made(tmp_path / "new"), make_spec(warm_start=address))
    warm_start(new)
    assert len(new.study.trials) == len(old.finished()) > 0
    assert new.trials() == []
    with pytest.raises(ConfigError, match=f"search.warm_start: {bucket}/nowhere: no search here"):
        warm_start(SearchStudy(_made(tmp_path / "none"), make_spec(warm_start=f"{bucket}/nowhere")))


def test_a_search_learns_from_one_of_its_own_name_in_another_folder(bucket: str, spec: SearchSpec) -> None:
    def opened(month: str, wanted: SearchSpec) -> tuple[Bucket, SearchSpec]:
        place = Bucket.at(f"{bucket}/{month}", "fgru")
        return Bucket(place.remote, place.folder, Lease(place.remote, Terms(settle=0.0))), wanted

    place, _ = opened("january", spec)
    with place.claimed(print):
        atomic.write_text(place.folder / SPEC_FILE, spec.to_yaml())
        old = SearchStudy(place.folder, spec, place=place)
        steps(old)
    place, later = opened("february", make_spec(max_failures=0, warm_start=f"{bucket}/january/fgru"))
    with place.claimed(print):
        atomic.write_text(place.folder / SPEC_FILE, later.to_yaml())
        new = SearchStudy(place.folder, later, place=place)
        warm_start(new)
        steps(new)
    assert stored_spec(place.folder) == later
    assert (len(new.trials()), len(new.study.trials)) == (9, 9 + len(old.finished()))
    read = journal(place.remote, place.folder.parent / "read.log")
    assert len(read.get_all_trials(read.get_study_id_from_name("fgru"))) == len(new.study.trials)
