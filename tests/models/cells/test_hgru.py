import copy
import pickle
from collections.abc import Callable

import pytest
import torch

from models.cells import build_cell


def _asymmetry(weight: torch.Tensor) -> float:
    return (weight - weight.transpose(0, 1)).abs().max().item()


def _deepcopied(cell: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(cell)


def _pickled(cell: torch.nn.Module) -> torch.nn.Module:
    return pickle.loads(pickle.dumps(cell))


@pytest.mark.parametrize("copied", [lambda cell: cell, _deepcopied, _pickled])
@pytest.mark.parametrize("normalization", ["none", "batchnorm"])
def test_kernels_stay_symmetric_in_training(
    normalization: str, copied: Callable[[torch.nn.Module], torch.nn.Module]
) -> None:
    cell = copied(build_cell("hgru", 3, 4, normalization=normalization, time_steps=3))
    optimizer = torch.optim.AdamW(cell.parameters(), lr=0.1)
    before = cell.hgru.w_gate_inh.detach().clone()
    for _ in range(2):
        cell(torch.randn(2, 3, 5, 7), torch.randn(2, 4, 5, 7))[0].square().sum().backward()
        optimizer.step()
    assert not torch.allclose(cell.hgru.w_gate_inh, before)
    assert max(_asymmetry(cell.hgru.w_gate_inh), _asymmetry(cell.hgru.w_gate_exc)) < 1e-6


def test_the_same_image_gives_the_same_output_at_every_call() -> None:
    cell = build_cell("hgru", 3, 4, normalization="layernorm").eval()
    x = torch.randn(2, 3, 5, 7)
    assert torch.equal(cell(x)[0], cell(x)[0])


def test_thesis_exact_starts_from_noise() -> None:
    cell = build_cell("hgru", 3, 4, normalization="layernorm", thesis_exact=True).eval()
    x = torch.randn(2, 3, 5, 7)
    assert not torch.equal(cell(x)[0], cell(x)[0])


def test_norm_free_step_is_the_papers_equation_at_a_pixel() -> None:
    cell = build_cell("hgru", 2, 2, kernel_size=1, do_preconv=False, time_steps=3)
    c = cell.hgru
    with torch.no_grad():
        for name in ("alpha", "gamma", "kappa", "w", "mu", "n"):
            getattr(c, name).normal_()
    x, h = torch.randn(2), torch.randn(2)
    at = {name: getattr(c, name).flatten() for name in ("alpha", "gamma", "kappa", "w", "mu", "n")}
    g1 = torch.sigmoid(c.u1_gate.weight[:, :, 0, 0] @ h + c.u1_gate.bias)
    c1 = c.w_gate_inh[:, :, 0, 0] @ (g1 * h)
    h1 = torch.tanh(x - c1 * (at["alpha"] * h + at["mu"]))
    g2 = torch.sigmoid(c.u2_gate.weight[:, :, 0, 0] @ h1 + c.u2_gate.bias)
    c2 = c.w_gate_exc[:, :, 0, 0] @ h1
    new = torch.tanh(at["kappa"] * h1 + at["gamma"] * c2 + at["w"] * h1 * c2)
    mixed = (1 - g2) * h + g2 * new
    for t, eta in ((0, at["n"][0]), (2, at["n"][2]), (7, at["n"][2])):  # beyond the trained steps: the last
        output, _ = cell(x.view(1, 2, 1, 1), h.view(1, 2, 1, 1), t)
        torch.testing.assert_close(output.flatten(), eta * mixed)


@pytest.mark.parametrize("time_steps", [1, 2, 7, 15])
def test_time_constants_span_the_trained_steps(time_steps: int) -> None:
    circuit = build_cell("hgru", 3, 200, time_steps=time_steps).hgru
    spans = circuit.u1_gate.bias.exp()
    assert spans.min() >= 1 - 1e-5
    assert spans.max() <= max(time_steps - 1, 1) + 1e-4
    assert spans.max() > 0.9 * max(time_steps - 1, 1)
    assert torch.equal(circuit.u2_gate.bias, -circuit.u1_gate.bias)


def test_norms_of_the_circuit_start_at_a_tenth() -> None:
    for norm in build_cell("hgru", 3, 4, normalization="instancenorm").hgru.bn:
        torch.testing.assert_close(norm.weight, torch.full((4,), 0.1))


def test_preconvolution_reduces_a_large_kernel_block_to_its_own_stride() -> None:
    cell = build_cell("hgru", 3, 4, stride=2, kernel_size=7, preconv_kernel=3)
    assert cell(torch.randn(2, 3, 9, 11))[0].shape == (2, 4, 4, 5)


def test_a_frozen_cell_can_be_copied_and_one_that_learns_again_stays_symmetric() -> None:
    cell = build_cell("hgru", 3, 4).requires_grad_(False)
    frozen = _deepcopied(_pickled(cell))
    frozen.load_state_dict({name: value.clone() for name, value in cell.state_dict().items()}, assign=True)
    frozen.requires_grad_(True)
    frozen(torch.randn(2, 3, 5, 7), torch.randn(2, 4, 5, 7))[0].square().sum().backward()
    assert _asymmetry(frozen.hgru.w_gate_inh.grad) < 1e-6 < frozen.hgru.w_gate_inh.grad.abs().max()
