import pytest
import torch

from models.cells import build_cell


def _with_gate(bias: float, thesis_exact: bool = False) -> torch.nn.Module:
    cell = build_cell("gru", 3, 4, thesis_exact=thesis_exact)
    with torch.no_grad():
        cell.wz.bias.fill_(bias)
    return cell


def test_an_open_update_gate_replaces_the_state_and_a_closed_one_keeps_it() -> None:
    x, h = torch.randn(2, 3, 5, 7), torch.randn(2, 4, 5, 7)
    torch.testing.assert_close(_with_gate(-100.0)(x, h)[0], h)
    replaced = _with_gate(100.0)(x, h)[0]
    assert (replaced >= 0).all()  # nothing but the relu candidate is left
    assert not torch.allclose(replaced, torch.zeros_like(h))


def test_the_thesis_rule_scales_old_and_new_by_one_gate() -> None:
    x, h = torch.randn(2, 3, 5, 7), torch.randn(2, 4, 5, 7)
    torch.testing.assert_close(_with_gate(-100.0, thesis_exact=True)(x, h)[0], torch.zeros_like(h))


def test_gru_with_1x1_kernel_and_tanh_is_the_papers_equation_at_a_pixel() -> None:
    cell = build_cell("gru", 3, 4, kernel_size=1, activation="tanh")
    x, h = torch.randn(1, 3, 1, 1), torch.randn(1, 4, 1, 1)
    vx, vh = x.flatten(), h.flatten()

    def affine(name: str, v: torch.Tensor) -> torch.Tensor:
        conv = getattr(cell, name)
        return conv.weight[:, :, 0, 0] @ v + conv.bias

    r = torch.sigmoid(affine("wr", vx) + affine("ur", vh))
    z = torch.sigmoid(affine("wz", vx) + affine("uz", vh))
    c = torch.tanh(affine("wcan", vx) + affine("ucan", r * vh))
    torch.testing.assert_close(cell(x, h)[0].flatten(), (1 - z) * vh + z * c)


@pytest.mark.parametrize("cell_type", ["rnn", "gru", "lstm", "reciprocal", "hgru", "fgru"])
def test_a_state_in_float32_goes_on_under_bfloat16_autocast(cell_type: str) -> None:
    cell = build_cell(cell_type, 3, 4, normalization="layernorm", time_steps=2)
    x = torch.randn(2, 3, 5, 7)
    state = cell(x)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = cell(x, state, 1)
    torch.testing.assert_close(output.float(), cell(x, state, 1)[0], rtol=0.05, atol=0.1)
