"""Facts that hold for every cell."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from models.cells import CELLS, build_cell
from models.normalization import NORMALIZATIONS

TWO_STATES = ("lstm", "reciprocal")
RECURRENT = sorted(name for name, cell in CELLS.items() if cell.recurrent)


def _final(cell: torch.nn.Module, x: torch.Tensor, steps: int = 3) -> torch.Tensor:
    state: Any = None
    for t in range(steps):
        output, state = cell(x, state, t)
    return output


@pytest.mark.parametrize("cell_type", CELLS)
@pytest.mark.parametrize("normalization", [None, *NORMALIZATIONS])
def test_every_cell_trains_with_every_normalization(cell_type: str, normalization: str | None) -> None:
    cell = build_cell(cell_type, 3, 4, normalization=normalization, time_steps=3)
    output = _final(cell, torch.randn(2, 3, 5, 7))
    assert output.shape == (2, 4, 5, 7)
    output.square().mean().backward()
    # What makes the memory of a step that never comes has no gradient: its norm of that step; nor has the
    # gain of a state of zeros.
    norms = ("norm2.steps.2", "hgru.bn.0.steps.0") if normalization == "batchnorm_per_step" else ()
    unasked = [f"{norm}.{parameter}" for norm in norms for parameter in ("weight", "bias")]
    for name, parameter in cell.named_parameters():
        assert name in unasked or (parameter.grad is not None and parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("cell_type", CELLS)
def test_an_image_is_treated_the_same_whatever_else_is_in_the_batch(cell_type: str) -> None:
    for normalization in NORMALIZATIONS:
        cell = build_cell(cell_type, 3, 4, normalization=normalization, time_steps=3).eval()
        x = torch.randn(3, 3, 5, 7)
        torch.testing.assert_close(_final(cell, x)[:1], _final(cell, x[:1]))


@pytest.mark.parametrize("cell_type", RECURRENT)
def test_no_state_is_the_same_as_the_initial_state_given(cell_type: str) -> None:
    for normalization in ("none", "batchnorm", "layernorm"):
        cell = build_cell(cell_type, 3, 4, normalization=normalization, time_steps=3)
        x = torch.randn(2, 3, 5, 7)
        start: Any = cell.initial_state(cell.drive(x))
        if cell_type in TWO_STATES:
            start = (start, start)
        given, _ = copy.deepcopy(cell)(x, start, 0)
        torch.testing.assert_close(cell(x)[0], given)


@pytest.mark.parametrize("cell_type", RECURRENT)
def test_recurrent_cells_remember(cell_type: str) -> None:
    cell = build_cell(cell_type, 3, 4, time_steps=3)
    x, first, other = torch.randn(3, 2, 3, 5, 7)
    assert not torch.allclose(cell(x, cell(first)[1], 1)[0], cell(x, cell(other)[1], 1)[0])


def test_conv_remembers_nothing() -> None:
    cell = build_cell("conv", 3, 4)
    x = torch.randn(2, 3, 5, 7)
    output, state = cell(x, torch.randn(2, 4, 5, 7), 5)
    assert state is None
    assert torch.equal(output, cell(x)[0])


@pytest.mark.parametrize("cell_type", CELLS)
def test_weights_follow_from_the_torch_seed_alone(cell_type: str) -> None:
    torch.manual_seed(3)
    first = build_cell(cell_type, 3, 4, time_steps=5).state_dict()
    np.random.seed(11)
    torch.manual_seed(3)
    second = build_cell(cell_type, 3, 4, time_steps=5).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("cell_type", CELLS)
def test_kernel_size_is_honoured(cell_type: str) -> None:
    small, large = (build_cell(cell_type, 3, 4, kernel_size=k) for k in (1, 5))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in large.parameters())


@pytest.mark.parametrize("cell_type", RECURRENT)
def test_random_start_is_drawn_from_the_torch_seed(cell_type: str) -> None:
    cell = build_cell(cell_type, 3, 4, hidden_init="random", normalization="none", time_steps=3)
    x = torch.randn(2, 3, 5, 7)
    torch.manual_seed(1)
    first = cell(x)[0]
    assert not torch.equal(cell(x)[0], first)
    torch.manual_seed(1)
    assert torch.equal(cell(x)[0], first)


@pytest.mark.parametrize("cell_type", RECURRENT)
def test_fifteen_steps_keep_a_fresh_cell_finite(cell_type: str) -> None:
    for normalization in NORMALIZATIONS:
        cell = build_cell(cell_type, 8, 8, normalization=normalization, time_steps=15)
        assert _final(cell, torch.randn(2, 8, 9, 9), steps=15).abs().max() < 1e3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell_type": "grru"}, "unknown cell_type 'grru'; allowed: conv, rnn"),
        ({"hidden_init": "ones"}, "unknown hidden_init 'ones'"),
        (
            {"cell_type": "gru", "hidden_init": "identity"},
            "hidden_init 'identity' needs an input of the state's",
        ),
        ({"time_steps": 0}, "time_steps must be at least 1, got 0"),
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"cell_type": "hgru", "do_preconv": False}, r"in_channels \(3\) must equal out_channels \(4\)"),
        ({"cell_type": "fgru", "attention": "gal"}, "unknown attention 'gal'; allowed: gala, se, none"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_cell(**{"cell_type": "rnn", "in_channels": 3, "out_channels": 4, **arguments})


@pytest.mark.parametrize("gate_bias", ["before_norm", "after_norm"])
@pytest.mark.parametrize("cell_type", ["hgru", "fgru"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "normalization", ["none", "batchnorm", "batchnorm_per_step", "layernorm", "groupnorm"]
)
def test_no_state_is_a_state_of_zeros_to_numbers_gradients_and_statistics(
    cell_type: str, normalization: str, training: bool, gate_bias: str
) -> None:
    options: dict[str, Any] = {"hidden_init": "zero", "gate_bias": gate_bias}
    cell = build_cell(cell_type, 3, 4, normalization=normalization, time_steps=2, **options)
    cell.double().train(training)
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter)
    for buffer in cell.buffers():
        buffer.copy_(torch.rand_like(buffer.double()) + 1.0)
    x, zeros = torch.randn(2, 3, 5, 7).double(), torch.zeros(2, 4, 5, 7).double()
    found = []
    for same, state in ((copy.deepcopy(cell), None), (copy.deepcopy(cell), zeros)):
        output = same(x, state)[0]
        output.square().sum().backward()
        gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in same.named_parameters()}
        found.append([output, gradients, dict(same.named_buffers())])
    torch.testing.assert_close(found[0], found[1])
