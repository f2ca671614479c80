"""The loss, worked out by hand, and hits counted by an independent library."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainable.config import TrainConfig
from trainable.config_file import validate
from trainable.errors import ConfigError
from trainable.metrics import counts, hits
from trainable.objective import Objective, time_weights

CPU = torch.device("cpu")


class Fixed(nn.Module):
    """Gives the logits it was made with, one (N, K) per time step."""

    def __init__(self, *logits: Tensor) -> None:
        super().__init__()
        self.logits = list(logits)

    def forward(self, x: Tensor, *, return_all: bool, return_hidden: bool) -> Any:
        hidden = [[logits, None, (logits, logits)] for logits in self.logits]
        return (self.logits, hidden) if return_all else (self.logits[-1], hidden[-1])


def objective(small: dict[str, Any], **changes: Any) -> Objective:
    return Objective(TrainConfig(**{**small, **changes}), CPU)


def logits_of(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities).log()


@pytest.mark.parametrize(
    ("time_loss", "weights"),
    [
        ("last", [0, 0, 1]),
        ("uniform", [1 / 3, 1 / 3, 1 / 3]),
        ("linear", [1 / 6, 2 / 6, 3 / 6]),
        ([1.0, 0.0, 3.0], [0.25, 0, 0.75]),
    ],
)
def test_the_loss_weighs_time_steps_as_asked(
    small: dict[str, Any], time_loss: Any, weights: list[float]
) -> None:
    loss_of = objective(small, time_steps=3, time_loss=time_loss)
    assert time_weights(loss_of.config) == pytest.approx(weights)
    # The right class has probability 1/2, 1/4 and 1/8 at the three steps, for one image.
    steps = [logits_of([p, 1 - p]) for p in (1 / 2, 1 / 4, 1 / 8)]
    outcome = loss_of(Fixed(*steps), torch.zeros(1, 3, 8, 8), torch.tensor([0]))
    by_hand = math.log(2) * (weights[0] + 2 * weights[1] + 3 * weights[2])
    assert outcome.loss.item() == pytest.approx(by_hand)
    assert torch.equal(outcome.logits, steps[-1])


def test_label_smoothing_spreads_its_share_over_all_classes(small: dict[str, Any]) -> None:
    # Targets of two classes smoothed by 0.2 are 0.9 and 0.1.
    logits = logits_of([0.8, 0.2], [0.3, 0.7])
    outcome = objective(small, label_smoothing=0.2)(
        Fixed(logits), torch.zeros(2, 3, 8, 8), torch.tensor([0, 0])
    )
    by_hand = -sum(0.9 * math.log(p) + 0.1 * math.log(1 - p) for p in (0.8, 0.3))
    assert outcome.loss.item() == pytest.approx(by_hand)


def test_mixed_targets_count_both_labels(small: dict[str, Any]) -> None:
    outcome = objective(small)(
        Fixed(logits_of([0.8, 0.2])), torch.zeros(1, 3, 8, 8), torch.tensor([[0.75, 0.25]])
    )
    assert outcome.loss.item() == pytest.approx(-0.75 * math.log(0.8) - 0.25 * math.log(0.2))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_flags_name_the_state_and_the_loss(small: dict[str, Any], bad: float) -> None:
    loss_of, label, image = objective(small), torch.tensor([0]), torch.zeros(1, 3, 8, 8)
    good = torch.zeros(1, 2)
    assert loss_of(Fixed(good), image, label).flags.tolist() == [0, 0]
    assert loss_of(Fixed(torch.tensor([[bad, 0.0]])), image, label).flags.tolist() == [1, 1]


def test_a_time_loss_of_another_length_is_refused(small: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"one weight per time step \(2\), got 3"):
        validate(TrainConfig, {**small, "time_loss": [1, 2, 3]}, "run.json")
    with pytest.raises(ConfigError, match="one above 0"):
        validate(TrainConfig, {**small, "time_loss": [0, 0]}, "run.json")


@pytest.mark.parametrize("classes", [3, 11])
def test_hits_are_those_of_torchmetrics(classes: int) -> None:
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(101, classes, generator=generator)
    labels = torch.randint(classes, (101,), generator=generator)
    for k in (1, 5):
        accuracy = torchmetrics.multiclass_accuracy(
            logits, labels, num_classes=classes, top_k=min(k, classes), average="micro"
        )
        assert hits(logits, labels, k).item() / 101 == pytest.approx(accuracy.item())


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 7, generator=generator)
    labels = torch.randint(7, (50,), generator=generator)
    losses = torch.rand(50, generator=generator)
    whole = counts(losses.double().sum(), logits, labels)
    parts = [
        counts(loss.double().sum(), some, wanted)
        for loss, some, wanted in zip(losses.split(16), logits.split(16), labels.split(16), strict=True)
    ]
    torch.testing.assert_close(torch.stack(parts).sum(0), whole)
    assert whole[3] == 50
