"""Learning rates worked out by hand, or by torch's own schedulers."""

import math
from typing import Any

import pytest
import torch

from trainable.config import TrainConfig
from trainable.config_file import validate
from trainable.errors import ConfigError
from trainable.schedules import learning_rate


def rates(small: dict[str, Any], per_epoch: int, **changes: Any) -> list[float]:
    """The learning rate of every step of a run."""
    config = TrainConfig(**{**small, "learning_rate": 1.0, **changes})
    return [learning_rate(config, step, per_epoch) for step in range(config.max_epochs * per_epoch)]


def test_step_divides_by_ten_every_lr_step_epochs(small: dict[str, Any]) -> None:
    expected = [1.0] * 4 + [0.1] * 4 + [0.01] * 2
    assert rates(small, 2, epochs=5, lr_scheduler="step", lr_step=2) == pytest.approx(expected)


def test_cosine_falls_from_one_along_half_a_period(small: dict[str, Any]) -> None:
    root = math.sqrt(0.5)
    expected = [1.0, (1 + root) / 2, 0.5, (1 - root) / 2]
    assert rates(small, 2, epochs=2, lr_scheduler="cosine") == pytest.approx(expected)


def test_linear_with_a_warm_up_rises_from_a_part_and_falls_by_equal_parts(small: dict[str, Any]) -> None:
    # Warm-up over 1.5 epochs of 4 steps: 6 steps; then 10 steps that each lose a tenth.
    expected = [(s + 1) / 6 for s in range(6)] + [1 - s / 10 for s in range(10)]
    assert rates(small, 4, epochs=4, lr_scheduler="linear", warmup_epochs=1.5) == pytest.approx(expected)


def test_a_warm_up_works_before_every_schedule(small: dict[str, Any]) -> None:
    assert rates(small, 2, epochs=3, warmup_epochs=1) == pytest.approx([0.5, 1, 1, 1, 1, 1])
    step = rates(small, 2, epochs=3, warmup_epochs=1, lr_scheduler="step", lr_step=1)
    assert step == pytest.approx([0.5, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(("warmup", "share"), [(0.0, 0.3), (2.0, 0.4)])
def test_onecycle_is_torch_s(small: dict[str, Any], warmup: float, share: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torch_s = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, 20, pct_start=share, cycle_momentum=False)
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torch_s.step()
    mine = rates(small, 4, epochs=5, lr_scheduler="onecycle", warmup_epochs=warmup)
    assert mine == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": "early-stop", "lr_scheduler": "linear"}, "'linear' needs a number of epochs"),
        ({"warmup_epochs": 3}, r"warmup_epochs must be below epochs \(3\), got 3"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(
    small: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(TrainConfig, {**small, **change}, "run.json")
