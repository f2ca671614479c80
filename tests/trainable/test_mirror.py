"""A folder and its mirror in a bucket; a kill is an upload that never comes."""

from pathlib import Path
from typing import Any

import pytest

from tests.trainable.killed_writers import content
from trainable.atomic import StorageError
from trainable.checkpoint import CheckpointStore
from trainable.mirror import Claim, Mirror
from trainable.remote import Remote
from trainable.session import LocalSession
from trainable.working import working_folder


class Killed(Exception):
    """Stands for a SIGKILL: nothing after it is sent."""


class DyingRemote(Remote):
    """Dies at the n-th change it is asked to make."""

    left = 10**9

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def upload(self, name: str, file: Path) -> None:
        self._count()
        super().upload(name, file)

    def delete(self, name: str) -> None:
        self._count()
        super().delete(name)


def anything(name: str) -> bool:
    return True


def pulled(bucket: str, folder: Path) -> Path:
    Mirror(folder, Remote(bucket)).pull(anything)
    return folder


def names(bucket: str) -> list[str]:
    return sorted(Remote(bucket).entries())


def test_changes_and_deletions_arrive_and_nothing_else_is_sent(bucket: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "deep").mkdir(parents=True)
    (here / "deep" / "a.txt").write_text("one")
    (here / "b.txt").write_text("two")
    (here / ".hidden").write_text("not for others")
    remote = DyingRemote(bucket)
    mirror = Mirror(here, remote)
    mirror.push(anything)
    assert names(bucket) == ["b.txt", "deep/a.txt"]
    there = pulled(bucket, tmp_path / "there")
    assert (there / "deep" / "a.txt").read_text() == "one"

    (here / "b.txt").write_text("three")
    (here / "deep" / "a.txt").unlink()
    remote.left = 2
    mirror.push(anything)
    mirror.push(anything)  # nothing to do: it would die
    assert remote.left == 0
    assert names(bucket) == ["b.txt"]
    assert Remote(bucket).read("b.txt") == b"three"


def test_a_file_larger_than_one_part_arrives_whole(bucket: str, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(range(256)) * 150_000)  # 38 MB
    remote = Remote(bucket)
    remote.upload("large", file)
    assert remote.download("large", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def checkpoints(folder: Path, epochs: range) -> None:
    with CheckpointStore(folder / "checkpoints", keep=2) as store:
        for epoch in epochs:
            store.save((epoch, 0), content(epoch))


def test_killed_between_any_two_objects_the_newest_sealed_checkpoint_is_whole(
    bucket: str, tmp_path: Path
) -> None:
    found = []
    for at in range(20):
        folder, address = tmp_path / f"here{at}", f"{bucket}/{at}"
        checkpoints(folder, range(1, 4))
        remote = DyingRemote(address)
        mirror = Mirror(folder, remote)
        mirror.push(anything)  # epochs 2 and 3
        with CheckpointStore(folder / "checkpoints", keep=2) as store:
            store.save((3, 0), {**content(3), "other": "than before"})  # the run had gone back behind it
            store.save((4, 0), content(4))  # and 2 is deleted
        remote.left = at
        done = True
        try:
            mirror.push(anything)
        except Killed:
            done = False
        there = CheckpointStore(pulled(address, tmp_path / f"there{at}") / "checkpoints")
        newest = there.load_latest()
        assert newest is not None
        assert not there.notes  # no seal vouches for another file
        epoch = newest["epoch"]
        assert newest["weights"].eq(epoch).all()
        found.append(epoch)
        if done:
            assert names(address) == sorted(
                path.relative_to(folder).as_posix()
                for path in folder.rglob("*")
                if path.is_file() and not path.name.startswith(".")
            )
            break
    assert found[0] == 3
    assert found[-1] == 4
    assert set(found) == {2, 3, 4}  # never nothing; 2 while 3 is replaced


def test_whoever_is_superseded_sends_nothing_more(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("1")
    old = Mirror(tmp_path, Remote(bucket), Claim(Remote(bucket)).check)
    old.push(anything)
    Claim(Remote(bucket))
    (tmp_path / "result.json").write_text("2")
    with pytest.raises(StorageError, match="another process has taken this run up"):
        old.push(anything)
    assert Remote(bucket).read("result.json") == b"1"


class Reporting(LocalSession):
    """Keeps what was in the bucket at each report."""

    def __init__(self, working: Any, uri: str) -> None:
        super().__init__(working.path)
        self._working, self._remote = working, Remote(uri)
        self.stored: list[int] = []

    def checkpoint_written(self) -> None:
        self._working.store_checkpoints()

    def report(self, metrics: dict[str, Any]) -> None:
        self._working.store()
        super().report(metrics)
        rows = (self._remote.read("result.json") or b"").splitlines()
        self.stored.append(len(rows))
        if metrics["epoch"] == 2 and len(self.reports) == 2:
            raise Killed


def test_a_trial_killed_on_one_machine_ends_on_another_as_if_nothing_had_been(
    bucket: str, tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.trainable.sessions import assert_same, run
    from trainable.config import TrainConfig
    from trainable.loop import train
    from trainable.weights import read_weights

    trial = {"remote": Remote(bucket).uri}
    monkeypatch.setenv("RECURRENT_VISION_SCRATCH", str(tmp_path / "scratch"))
    with pytest.raises(Killed), working_folder(trial) as folder:
        train(TrainConfig(**small), Reporting(folder, bucket))
    assert not folder.path.exists()
    with working_folder(trial) as folder:
        session = Reporting(folder, bucket)
        train(TrainConfig(**small), session)
    assert session.stored[-1] == 3
    assert [row["epoch"] for row in session.reports][-1] == 3
    assert len(session.reports) < 3  # went on, did not begin anew
    Remote(bucket).download("model.weights", tmp_path / "model.weights")
    alone, _ = run(tmp_path / "alone", small)
    assert_same(read_weights(tmp_path / "model.weights"), alone)


def test_scratch_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    code = "import os, sys; from trainable.scratch import scratch; (scratch('x') / 'f').touch(); {}"
    environment = {**os.environ, "RECURRENT_VISION_SCRATCH": str(tmp_path)}

    def run(ending: str) -> None:
        subprocess.run([sys.executable, "-c", code.format(ending)], env=environment)

    run("os.kill(os.getpid(), 9)")
    assert len(list(tmp_path.glob("*/x/f"))) == 1
    run("print()")
    assert list(tmp_path.glob("*/x/f")) == []
