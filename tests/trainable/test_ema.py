import pytest
import torch
from torch import nn

from trainable.ema import Ema


def test_the_average_follows_the_recursion_worked_out_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 0.0)
    ema = Ema(network, decay=0.3)
    # d_1 = 2/11, d_2 = 3/12; from n = 4 on (5/14 > 0.3) the decay is 0.3.
    expected = 0.0
    for step, (decay, weight) in enumerate([(2 / 11, 1.0), (1 / 4, 2.0), (0.3, 4.0), (0.3, -1.0)], start=1):
        nn.init.constant_(network.weight, weight)
        ema.update(network, step)
        expected = decay * expected + (1 - decay) * weight
        assert ema.network.weight.item() == pytest.approx(expected)


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    network = nn.BatchNorm2d(2)
    ema = Ema(network, decay=0.0)
    network(torch.randn(4, 2, 3, 3) + 5)
    ema.update(network, 1)
    torch.testing.assert_close(ema.network.running_mean, network.running_mean)
    assert ema.network.num_batches_tracked == 1
    assert not ema.network.training
