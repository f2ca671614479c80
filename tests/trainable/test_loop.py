import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data import open_data
from models import build_model
from tests.trainable.sessions import assert_same, run
from trainable.checkpoint import CheckpointStore
from trainable.metrics import MEASURES
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


def test_no_image_of_a_batch_is_normalised_alone(tmp_path: Path, small: dict[str, Any]) -> None:
    # The last maps are 1x1: batch normalization of one image has nothing to average over.
    network = {"model_base": "resnet18", "image_size": 16, "normalization": "batchnorm"}
    kept = {k: v for k, v in small.items() if k in ("dataset", "epochs", "learning_rate")}
    settings = {**kept, **network, "batch_size": 479, "epochs": 1}
    _, session = run(tmp_path, {**settings, "batch_max": 239})  # 160 + 160 + 159, not 239 + 239 + 1
    assert math.isfinite(session.reports[-1]["train_loss"])


def test_tensorboard_has_every_epoch_once(tmp_path: Path, small: dict[str, Any]) -> None:
    run(tmp_path, small)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val_acc")] == [1, 2, 3]
    assert [event.value for event in events.Scalars("val_loss")] == pytest.approx(
        [row["val_loss"] for row in read_rows(tmp_path)]
    )


def test_validation_accuracy_is_that_of_the_exported_weights(tmp_path: Path, small: dict[str, Any]) -> None:
    weights, session = run(tmp_path, small)
    model = build_model(small, 10)
    model.load_state_dict(weights, strict=True)
    model.eval()
    data = open_data("digits", batch_size=7)
    with torch.no_grad():
        correct = [model(x).argmax(1) == y for x, y in data.validation.epoch(0)]
    assert torch.cat(correct).double().mean().item() == pytest.approx(session.reports[-1]["val_acc"])


def test_early_stop_ends_when_validation_loss_stops_falling(tmp_path: Path, small: dict[str, Any]) -> None:
    # No epoch can improve by 100 nats: patience alone decides.
    settings = {**small, "epochs": "early-stop", "early_stop_patience": 2, "early_stop_min_delta": 100.0}
    _, session = run(tmp_path, settings)
    # Epoch 1 improves on infinity; 2 and 3 don't.
    assert [row["epoch"] for row in session.reports] == [1, 2, 3]


def test_accuracy_is_measured_at_every_time_step_and_at_twice_as_many(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    settings = {**small, "time_steps": 3, "cell_type": "gru", "epochs": 2}
    weights, session = run(tmp_path, settings)
    model = build_model(settings, 10)
    model.load_state_dict(weights, strict=True)
    model.eval()
    with torch.no_grad():
        right = [
            torch.stack([step.argmax(1) == labels for step in model(images, 6, return_all=True)]).double()
            for images, labels in open_data("digits", batch_size=128).validation.epoch(0)
        ]
    by_step = torch.cat(right, 1).mean(1).tolist()
    first, last = session.reports
    assert last["val_acc_t"] == pytest.approx(by_step[:3])
    assert last["val_acc"] == last["val_acc_t"][-1]
    assert last["val_acc_2t"] == pytest.approx(by_step[5])
    assert "val_acc_2t" not in first
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    curve = [events.Scalars(f"val_acc_t/{t:02d}")[-1].value for t in (1, 2, 3)]
    assert curve == pytest.approx(last["val_acc_t"])


def test_rows_say_what_an_epoch_cost(tmp_path: Path, small: dict[str, Any]) -> None:
    weights, session = run(tmp_path, small)
    first, *_, last = session.reports
    assert set(MEASURES) <= first.keys()
    assert (first["image_steps"], last["image_steps"]) == (11 * 128 * 2, 3 * 11 * 128 * 2)
    assert first["parameters"] == sum(value.numel() for value in weights.values())
    assert first["images_per_second"] * first["seconds_per_image"] == pytest.approx(1)
    assert 0 <= first["wait_seconds"] < first["seconds"]
    assert 0.05 < first["peak_memory_gib"] < 24
    assert first["micro_batch"] == 128


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_like_single(tmp_path: Path, small: dict[str, Any], precision: str) -> None:
    settings = {**small, "dropout": 0.0, "epochs": 2}
    _, single = run(tmp_path / "fp32", settings)
    weights, half = run(tmp_path / precision, {**settings, "precision": precision})
    a, b = single.reports[-1], half.reports[-1]
    assert b["train_loss"] != a["train_loss"]
    assert b["train_loss"] == pytest.approx(a["train_loss"], rel=0.03)
    assert b["val_acc"] == pytest.approx(a["val_acc"], abs=0.1)
    assert {value.dtype for value in weights.values()} == {torch.float32}


@pytest.mark.parametrize(
    "execution",
    [
        {"channels_last": True},
        {"recompute": True},
        pytest.param({"compile": "step"}, marks=pytest.mark.slow),
    ],
)
def test_how_a_network_is_executed_changes_nothing_of_what_it_learns(
    tmp_path: Path, small: dict[str, Any], execution: dict[str, Any]
) -> None:
    settings = {**small, "epochs": 1, "optimizer": "sgd", "ema_decay": 0.9}
    plain, _ = run(tmp_path / "plain", settings)
    other, _ = run(tmp_path / "other", {**settings, **execution})
    assert plain.keys() == other.keys()
    for name in plain:
        torch.testing.assert_close(other[name], plain[name], rtol=1e-3, atol=1e-5)


def test_averaged_weights_are_what_is_validated_and_written(tmp_path: Path, small: dict[str, Any]) -> None:
    plain, _ = run(tmp_path / "plain", {**small, "epochs": 1})
    averaged, session = run(tmp_path / "ema", {**small, "epochs": 1, "ema_decay": 0.9})
    content = CheckpointStore(tmp_path / "ema" / "checkpoints").load_latest()
    assert content is not None
    assert_same(content["model"], plain)
    assert_same(content["ema"], averaged)
    model = build_model(small, 10)
    model.load_state_dict(averaged, strict=True)
    model.eval()
    with torch.no_grad():
        right = [
            model(images).argmax(1) == labels
            for images, labels in open_data("digits", batch_size=128).validation.epoch(0)
        ]
    assert session.reports[-1]["val_acc"] == pytest.approx(torch.cat(right).double().mean().item())
