import threading
from typing import Any

import torch
from torch import Tensor, nn

from trainable.sync_batchnorm import SyncBatchNorm2d


class TwoThreads:
    """Sums over two threads: a session as far as a normalization needs one."""

    world_size = 2

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)
        self.given: dict[int, Tensor] = {}

    def sum(self, values: Tensor) -> Tensor:
        self.given[threading.get_ident()] = values.clone()
        self.barrier.wait(timeout=20)
        total = sum(self.given.values())
        self.barrier.wait(timeout=20)
        self.given.clear()
        self.barrier.wait(timeout=20)
        assert isinstance(total, Tensor)
        return total


def test_two_workers_normalise_and_learn_like_one_over_all_images() -> None:
    generator = torch.Generator().manual_seed(0)
    images = 3.0 + torch.randn(6, 4, 5, 3, generator=generator)
    weights = torch.randn(6, 4, 5, 3, generator=generator)
    whole, x = nn.BatchNorm2d(4), images.clone().requires_grad_()
    expected = whole(x)
    (expected * weights).sum().backward()

    session: Any = TwoThreads()
    norms = [SyncBatchNorm2d.of(nn.BatchNorm2d(4), session) for _ in range(2)]
    inputs = [part.clone().requires_grad_() for part in images.split([3, 3])]
    outputs: list[Tensor] = [torch.empty(0)] * 2

    def work(rank: int) -> None:
        outputs[rank] = norms[rank](inputs[rank])
        (outputs[rank] * weights.split([3, 3])[rank]).sum().backward()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(torch.cat(outputs), expected)
    gradients = [part.grad for part in inputs if part.grad is not None]
    torch.testing.assert_close(torch.cat(gradients), x.grad)
    summed = sum(norm.weight.grad for norm in norms if norm.weight is not None)
    torch.testing.assert_close(summed, whole.weight.grad)
    for norm in norms:
        torch.testing.assert_close(norm.running_mean, whole.running_mean)
        torch.testing.assert_close(norm.running_var, whole.running_var)
        assert norm.num_batches_tracked == 1
