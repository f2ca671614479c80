from typing import Any

import pytest
import torch
from torch import nn

from models import build_model
from trainable.config import TrainConfig
from trainable.optim import OPTIMIZERS, build_optimizer, clip_gradients, is_kernel


def test_weight_decay_spares_norms_biases_and_gains(small: dict[str, Any]) -> None:
    config = TrainConfig(**{**small, "cell_type": "hgru", "weight_decay": 0.1})
    decayed, spared = build_optimizer(build_model(config, 10), config).param_groups
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert {p.ndim for p in decayed["params"]} == {4}
    assert {p.ndim for p in spared["params"]} == {1, 3}


def test_decay_all_spares_nothing(small: dict[str, Any]) -> None:
    config = TrainConfig(**{**small, "weight_decay": 0.1, "decay_all": True})
    (group,) = build_optimizer(build_model(config, 10), config).param_groups
    assert group["weight_decay"] == 0.1


def test_a_kernel_has_two_axes_longer_than_one() -> None:
    shapes = {(5,): False, (5, 1, 1): False, (1, 5, 1, 1): False, (5, 3): True, (5, 1, 3, 3): True}
    assert {shape: is_kernel(torch.empty(shape)) for shape in shapes} == shapes


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_decays_and_descends(small: dict[str, Any], name: str) -> None:
    config = TrainConfig(**{**small, "optimizer": name, "weight_decay": 0.01, "learning_rate": 0.05})
    network = nn.Linear(2, 2)
    optimizer = build_optimizer(network, config)
    losses = []
    for _ in range(30):
        loss = (network(torch.eye(2)) - torch.ones(2)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01, 0.0}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [3.0, 4.0]),
        ({"do_gradient_clipping": True, "clip_norm": 1.0}, [0.6, 0.8]),
        ({"do_gradient_clipping": True, "clip_norm": 10.0}, [3.0, 4.0]),
        ({"do_gradient_clipping": True, "clip_value": 3.5}, [3.0, 3.5]),
    ],
)
def test_gradients_are_clipped_as_asked_and_their_norm_is_that_before(
    small: dict[str, Any], settings: dict[str, Any], expected: list[float]
) -> None:
    network = nn.Linear(2, 1, bias=False)
    network.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip_gradients(network, TrainConfig(**{**small, **settings})).item() == pytest.approx(5.0)
    assert network.weight.grad[0].tolist() == pytest.approx(expected, rel=1e-5)
