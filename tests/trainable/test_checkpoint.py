from pathlib import Path

import numpy as np
import pytest
import torch

from trainable.checkpoint import CheckpointStore, random_states, restore_random_states


def test_the_newest_checkpoint_is_read_and_the_oldest_forgotten(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for epoch in (5, 10, 15):
        store.save((epoch, 0), {"epoch": epoch})
    assert store.load_latest() == {"epoch": 15}
    assert sorted(p.name for p in tmp_path.glob("*.pt")) == [
        "epoch_0010_step_000000.pt",
        "epoch_0015_step_000000.pt",
    ]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "torn seal"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(tmp_path: Path, damage: str) -> None:
    store = CheckpointStore(tmp_path)
    store.save((5, 0), {"weights": torch.ones(100)})
    path = store.save((5, 12), {"weights": torch.zeros(100)})
    data = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(data[:-1])
    elif damage == "flipped":
        path.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
    elif damage == "missing":
        path.unlink()
    else:
        path.with_suffix(".json").write_text('{"epoch": 10, "by')
    with pytest.warns(UserWarning, match="epoch_0005_step_000012.pt is damaged"):
        content = store.load_latest()
    assert content is not None
    assert torch.equal(content["weights"], torch.ones(100))


def test_a_checkpoint_without_its_seal_does_not_exist(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save((5, 0), {"a": 1}).with_suffix(".json").unlink()
    assert store.load_latest() is None


def test_random_generators_continue_where_they_were(tmp_path: Path) -> None:
    import random

    store = CheckpointStore(tmp_path)
    store.save((1, 0), random_states())
    drawn = (random.random(), np.random.rand(), torch.rand(3))
    states = store.load_latest()
    assert states is not None
    restore_random_states(states)
    again = (random.random(), np.random.rand(), torch.rand(3))
    assert drawn[:2] == again[:2]
    assert torch.equal(drawn[2], again[2])
