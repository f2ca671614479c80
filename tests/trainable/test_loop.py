from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models import build_model
from tests.trainable.sessions import assert_same, run
from trainable.config import TrainConfig
from trainable.loop import WEIGHTS_FILE, train
from trainable.optim import build_optimizer
from trainable.session import LocalSession
from trainable.tracking import read_rows


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    first, _ = run(tmp_path / "a", small)
    second, _ = run(tmp_path / "b", small)
    other, _ = run(tmp_path / "c", {**small, "seed": 1})
    assert_same(first, second)
    assert not torch.equal(first["last_conv.weight"], other["last_conv.weight"])


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path, small: dict[str, Any]) -> None:
    settings = {**small, "dropout": 0.0, "epochs": 1, "optimizer": "sgd", "batch_size": 50}
    whole, _ = run(tmp_path / "whole", settings)
    parts, _ = run(tmp_path / "parts", {**settings, "batch_max": 16})  # 16 + 16 + 16 + 2
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-4, atol=1e-6)


def test_tensorboard_has_every_epoch_once(tmp_path: Path, small: dict[str, Any]) -> None:
    run(tmp_path, small)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val_acc")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("val_loss")] == pytest.approx(
        [row["val_loss"] for row in read_rows(tmp_path)]
    )


def test_validation_accuracy_is_that_of_the_exported_weights(tmp_path: Path, small: dict[str, Any]) -> None:
    from data import open_data

    weights, session = run(tmp_path, small)
    model = build_model(small, 10)
    model.load_state_dict(weights, strict=True)
    model.eval()
    data = open_data("digits", batch_size=7)
    with torch.no_grad():
        correct = [model(x).argmax(1) == y for x, y in data.validation.epoch(0)]
    assert torch.cat(correct).double().mean().item() == pytest.approx(session.reports[-1]["val_acc"])


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(tmp_path: Path, small: dict[str, Any]) -> None:
    session = LocalSession(tmp_path)
    train(
        TrainConfig(**{**small, "optimizer": "sgd", "normalization": "none", "learning_rate": 1e20}), session
    )
    assert len(session.reports) == 1
    assert session.reports[0]["diverged"] == "exploding_state"
    assert not (tmp_path / WEIGHTS_FILE).exists()


def test_early_stop_ends_when_validation_loss_stops_falling(tmp_path: Path, small: dict[str, Any]) -> None:
    # No epoch can improve by 100 nats: patience alone decides.
    settings = {**small, "epochs": "early-stop", "early_stop_patience": 2, "early_stop_min_delta": 100.0}
    _, session = run(tmp_path, settings)
    # Epoch 1 improves on infinity; 2 and 3 don't.
    assert [row["epoch"] for row in session.reports] == [1, 2, 3]


def test_weight_decay_spares_norms_biases_and_gains(small: dict[str, Any]) -> None:
    config = TrainConfig(**{**small, "cell_type": "hgru", "weight_decay": 0.1})
    model = build_model(config, 10)
    decayed, spared = build_optimizer(model, config).param_groups
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert {p.ndim for p in decayed["params"]} == {4}
    assert {p.ndim for p in spared["params"]} == {1, 3}
