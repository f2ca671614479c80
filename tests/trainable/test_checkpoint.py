import itertools
import random
import shutil
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import build_model
from tests.trainable.killed_writers import content, forkserver, save_forever, save_twice_and_die
from trainable import sealed
from trainable.atomic import StorageError
from trainable.background import Background
from trainable.checkpoint import CheckpointStore, Position
from trainable.randomness import random_states, restore_random_states

STORED = Path(__file__).parent / "stored_checkpoint"


def save(store: CheckpointStore, *epochs: int) -> None:
    for epoch in epochs:
        store.save((epoch, 0), {"epoch": epoch})
    store.wait()


def test_the_newest_checkpoint_is_read_and_the_oldest_forgotten(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 5, 10, 15)
    assert store.load_latest() == {"epoch": 15}
    assert sorted(p.name for p in tmp_path.glob("*.pt")) == ["epoch_0010.pt", "epoch_0015.pt"]


def test_a_step_within_an_epoch_comes_after_the_epoch_before_and_before_its_end(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=9)
    for epoch, step in [(1, 200), (2, 0), (1, 0), (1, 1000)]:
        store.save((epoch, step), {"at": (epoch, step)})
        store.wait()
        assert store.load((epoch, step)) == {"at": (epoch, step)}
    assert (tmp_path / "epoch_0001_step_001000.pt").exists()
    # What lay ahead of a position that was saved again is gone: the run had gone back behind it.
    assert store.positions() == [Position(1, 1000), Position(1, 0)]


def test_the_best_stays_beyond_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for epoch in range(1, 7):
        store.save((epoch, 0), {"epoch": epoch}, best=epoch in (1, 3))
    store.save((6, 10), {"epoch": 6})
    store.wait()
    assert store.best() == Position(3)
    assert store.positions() == [Position(6, 10), Position(6), Position(3)]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "torn seal", "empty"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, damage: str) -> None:
    store = CheckpointStore(tmp_path)
    store.save((5, 0), {"weights": torch.ones(100)})
    store.save((10, 0), {"weights": torch.zeros(100)})
    store.wait()
    path = store.path(Position(10))
    data = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(data[:-1])
    elif damage == "flipped":
        path.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
    elif damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.with_suffix(".json").write_text('{"epoch": 10, "by')
    with pytest.warns(UserWarning, match="epoch_0010.pt is damaged"):
        loaded = store.load_latest()
    assert loaded is not None
    assert torch.equal(loaded["weights"], torch.ones(100))


def test_a_damaged_checkpoint_ahead_does_not_crowd_out_good_ones(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 8, 9, 10)
    for epoch in (9, 10):
        store.path(Position(epoch)).write_bytes(b"noise")
    save(store, 5)
    assert store.positions() == [Position(5)]


def test_a_checkpoint_without_its_seal_does_not_exist(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 5)
    store.path(Position(5)).with_suffix(".json").unlink()
    assert store.load_latest() is None


def test_what_is_saved_is_the_state_at_the_call_and_not_when_it_reaches_the_disk(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    weights, history = torch.zeros(1_000_000), [{"epoch": 1}]
    state = {"weights": weights, "nested": ([weights[:3]], history)}
    store.save((1, 0), state)
    weights.fill_(7.0)
    history.append({"epoch": 2})
    store.wait()
    loaded = store.load((1, 0))
    assert torch.equal(loaded["weights"], torch.zeros(1_000_000))
    assert torch.equal(loaded["nested"][0][0], torch.zeros(3))
    assert loaded["nested"][1] == [{"epoch": 1}]


def test_one_task_runs_beside_the_caller_and_the_next_waits_for_it() -> None:
    background, log, go = Background("test"), [], threading.Event()

    def first() -> None:
        go.wait(10)
        log.append("first")

    background.start(first)  # returns although the task waits
    assert log == []
    threading.Timer(0.1, go.set).start()
    background.start(lambda: log.append("second"))
    background.wait()
    assert log == ["first", "second"]


def test_an_error_while_writing_is_raised_once_by_whoever_asks_next(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "folder")
    (tmp_path / "folder").write_text("a file where the folder should be")
    store.save((1, 0), {"epoch": 1})
    with pytest.raises(StorageError, match=r"epoch_0001\.pt: cannot be written|folder: cannot be written"):
        store.save((2, 0), {"epoch": 2})
    store.wait()


def test_a_store_waits_for_its_last_checkpoint_and_for_other_writers(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path) as store:
        store.save((1, 0), {"weights": torch.zeros(3_000_000)})
    assert store.positions() == [Position(1)]
    entered = []

    def second() -> None:
        with CheckpointStore(tmp_path):
            entered.append(time.monotonic())

    with CheckpointStore(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        left = time.monotonic()
    thread.join()
    assert entered[0] >= left


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    save(CheckpointStore(tmp_path), 1)
    (tmp_path / ".epoch_0002.pt.abcdef").write_bytes(b"half")
    (tmp_path / "epoch_0003.pt").write_bytes(b"never sealed")
    (tmp_path / "notes.txt").write_text("mine")
    save(CheckpointStore(tmp_path), 2)
    names = {path.name for path in tmp_path.iterdir()} - {".lock"}
    assert names == {f"epoch_000{n}.{kind}" for n in (1, 2) for kind in ("pt", "json")} | {"notes.txt"}


def test_a_writer_killed_before_any_of_its_file_operations_leaves_a_loadable_state(tmp_path: Path) -> None:
    before, folder = tmp_path / "before", tmp_path / "folder"
    with CheckpointStore(before, keep=2) as store:
        for epoch in (1, 2, 3):
            store.save((epoch, 0), content(epoch))
    context, found, at = forkserver(), [], 0
    while True:
        at += 1
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before, folder)
        process = context.Process(target=save_twice_and_die, args=(folder, at))
        process.start()
        process.join(60)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # none is damaged
            loaded = CheckpointStore(folder).load_latest()
        assert loaded is not None, at
        assert torch.equal(loaded["weights"], content(loaded["epoch"])["weights"]), at
        found.append(loaded["epoch"])
        if process.exitcode == 0:
            break
        assert process.exitcode == -9
    # Epoch 3 was replaced by itself: without its seal for an instant, never without a predecessor.
    assert [epoch for epoch, _ in itertools.groupby(found)] == [3, 2, 3, 4]
    assert len(found) > 12


def test_a_writer_killed_at_random_instants_never_loses_what_was_there(tmp_path: Path) -> None:
    context, rng, reached = forkserver(), random.Random(0), 0
    for _ in range(25):
        process = context.Process(target=save_forever, args=(tmp_path,))
        process.start()
        deadline = time.monotonic() + 60
        while next(iter(CheckpointStore(tmp_path).positions()), (0, 0))[0] <= reached:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.06 * rng.random())
        process.kill()
        process.join(60)
        loaded = CheckpointStore(tmp_path).load_latest()
        epoch = loaded["epoch"] if loaded else 0
        if loaded:
            assert torch.equal(loaded["weights"], content(epoch)["weights"])
        assert epoch > reached
        reached = epoch
    assert reached >= 25
    assert CheckpointStore(tmp_path).best() == Position(20)


def test_a_checkpoint_of_the_first_version_still_loads() -> None:
    loaded: dict[str, Any] | None = CheckpointStore(STORED).load_latest()
    assert loaded is not None
    assert loaded["history"][-1]["epoch"] == 2
    assert loaded["history"][-1]["val_acc"] == pytest.approx(0.5376044568245125)
    model = build_model(loaded["config"], len(loaded["class_names"]))
    model.load_state_dict(loaded["model"], strict=True)
    assert loaded["model"]["last_conv.bias"].sum().item() == pytest.approx(0.28214457)
    restore_random_states(loaded["random_states"][0])


def test_random_generators_continue_where_they_were(tmp_path: Path) -> None:
    sealed.write(tmp_path / "states.pt", random_states(), {})
    drawn = (random.random(), np.random.rand(), torch.rand(3))
    restore_random_states(sealed.read(tmp_path / "states.pt"))
    again = (random.random(), np.random.rand(), torch.rand(3))
    assert drawn[:2] == again[:2]
    assert torch.equal(drawn[2], again[2])
