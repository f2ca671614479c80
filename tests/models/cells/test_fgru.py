import pytest
import torch

from models.cells import build_cell


def test_default_normalization_is_instancenorm_and_none_is_none() -> None:
    default, none = build_cell("fgru", 3, 4), build_cell("fgru", 3, 4, normalization="none")
    assert isinstance(default.fgru.bn_g1, torch.nn.InstanceNorm2d)
    torch.testing.assert_close(default.fgru.bn_c2.weight, torch.full((4,), 0.1))
    assert not any("bn_" in name for name, _ in none.named_parameters())


def test_gate_bias_acts_without_a_norm() -> None:
    cell = build_cell("fgru", 3, 4, normalization="none", time_steps=5)
    x, h = torch.randn(2, 3, 5, 7), torch.rand(2, 4, 5, 7)
    with torch.no_grad():
        cell.fgru.conv_g2_b.fill_(-100.0)
    torch.testing.assert_close(cell(x, h, 1)[0], h)  # the mix gate is shut


def test_the_first_state_is_the_drive_and_can_be_zero() -> None:
    cell, x = build_cell("fgru", 3, 4), torch.randn(2, 3, 5, 7)
    assert torch.equal(cell(x)[0], cell(x, cell.drive(x), 0)[0])
    zero = build_cell("fgru", 3, 4, hidden_init="zero")
    assert torch.equal(zero(x)[0], zero(x, torch.zeros(2, 4, 5, 7), 0)[0])


@pytest.mark.parametrize("attention", ["gala", "se", "none"])
def test_every_attention_trains(attention: str) -> None:
    cell = build_cell("fgru", 3, 4, attention=attention)
    cell(torch.randn(2, 3, 5, 7))[0].sum().backward()
    assert all(p.grad is not None for p in cell.parameters())


@pytest.mark.parametrize("side", [2, 3])
def test_maps_smaller_than_the_saliency_kernel_work(side: int) -> None:
    assert build_cell("fgru", 3, 4)(torch.randn(2, 3, side, side))[0].shape == (2, 4, side, side)


def test_a_map_too_small_to_reflect_is_refused() -> None:
    with pytest.raises(ValueError, match="must be larger than kernel_size // 2 = 2, got 2x2"):
        build_cell("fgru", 3, 4, kernel_size=5)(torch.randn(2, 3, 2, 2))
