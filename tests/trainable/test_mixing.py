from typing import Any

import pytest
import torch

from trainable.config import TrainConfig
from trainable.mixing import Mixing

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6)


def mixing(small: dict[str, Any], **changes: Any) -> Mixing:
    return Mixing(TrainConfig(**{**small, **changes}), num_classes=6)


def test_a_mixture_is_a_function_of_seed_epoch_and_step(small: dict[str, Any]) -> None:
    torch.manual_seed(5)
    first = mixing(small, mixup=1.0, cutmix=1.0)(IMAGES, LABELS, 2, 7)
    torch.manual_seed(6)
    again = mixing(small, mixup=1.0, cutmix=1.0)(IMAGES, LABELS, 2, 7)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for place in ((2, 8), (3, 7)):
        assert not torch.equal(first[1], mixing(small, mixup=1.0, cutmix=1.0)(IMAGES, LABELS, *place)[1])
    other = mixing(small, mixup=1.0, cutmix=1.0, seed=1)(IMAGES, LABELS, 2, 7)
    assert not torch.equal(first[1], other[1])


def test_mixing_leaves_the_generator_of_dropout_alone(small: dict[str, Any]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    mixing(small, mixup=1.0)(IMAGES, LABELS, 0, 0)
    assert torch.equal(torch.rand(3), expected)


def test_mixup_adds_the_neighbour_in_the_proportion_of_its_label(small: dict[str, Any]) -> None:
    images, targets = mixing(small, mixup=1.0)(IMAGES, LABELS, 0, 3)
    share = targets[0, 0]
    assert 0 < share < 1
    assert targets[0, 5] == pytest.approx(1 - share.item())
    torch.testing.assert_close(images, share * IMAGES + (1 - share) * IMAGES.roll(1, 0))


def test_cutmix_s_labels_are_the_areas_it_pasted(small: dict[str, Any]) -> None:
    seen = 0
    for step in range(5):
        images, targets = mixing(small, cutmix=1.0)(IMAGES, LABELS, 0, step)
        own = (images == IMAGES).all(1).double().mean((1, 2))
        torch.testing.assert_close(targets.diagonal().double(), own)
        seen += int(0 < own[0] < 1)
    assert seen > 0


def test_without_either_labels_stay_indices(small: dict[str, Any]) -> None:
    images, labels = mixing(small)(IMAGES, LABELS, 0, 0)
    assert images is IMAGES
    assert labels is LABELS
