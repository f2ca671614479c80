"""The ways to execute a model, fused, recomputed, channels last, in bfloat16, leave its numbers alone."""

import copy
import pickle
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.cells import CELLS
from models.execution import prepare_model
from models.gammanet import GammaNet
from models.tower import FeedForwardTower
from models.unroll import STATE_SIZE, segment_lengths

RECURRENT = sorted(name for name, cell in CELLS.items() if cell.recurrent)


def _tower(cell_type: str, **settings: Any) -> FeedForwardTower:
    small = {"filters": [4, 6, 5], "pools": [True, False, True], "first_kernel": 3, "first_stride": 1}
    small |= {"time_steps": 7, "skip_first": True}
    return FeedForwardTower(5, cell_type=cell_type, **{**small, **settings})


def _train(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """All logits under one seed; gradients of parameters and buffers after the pass."""
    torch.manual_seed(3)
    logits = torch.stack(model(x, return_all=True))
    logits.square().sum().backward()
    left = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return logits, {**left, **dict(model.named_buffers())}


def _agree(model: nn.Module, reference: nn.Module, x: Tensor) -> None:
    logits, left = _train(model, x)
    expected, expected_left = _train(reference, x)
    torch.testing.assert_close(logits, expected)
    assert left.keys() == expected_left.keys()
    for name, value in expected_left.items():
        torch.testing.assert_close(left[name], value, msg=name)


@pytest.mark.parametrize(
    ("cell_type", "thesis_exact"),
    [(cell, thesis_exact) for cell in RECURRENT for thesis_exact in (False, True)],
)
@pytest.mark.parametrize("normalization", ["batchnorm", "batchnorm_per_step", "layernorm"])
def test_recomputation_changes_neither_logits_nor_gradients_nor_statistics(
    cell_type: str, normalization: str, thesis_exact: bool
) -> None:
    settings = {"normalization": normalization, "dropout": 0.3, "dropout_recurrent": 0.3}
    tower = _tower(cell_type, thesis_exact=thesis_exact, **settings).double()
    recomputed = copy.deepcopy(tower)
    recomputed.recompute = True
    _agree(recomputed, tower, torch.randn(3, 3, 13, 17, dtype=torch.float64))


@pytest.mark.parametrize("cell_type", RECURRENT)
def test_recomputation_starts_from_the_same_noise(cell_type: str) -> None:
    tower = _tower(cell_type, normalization="layernorm", hidden_init="random").double()
    recomputed = copy.deepcopy(tower)
    recomputed.recompute = True
    _agree(recomputed, tower, torch.randn(3, 3, 13, 17, dtype=torch.float64))


@pytest.mark.parametrize("peepholes", ["conv", "hadamard", "none"])
@pytest.mark.parametrize("cell_type", ["gru", "lstm", "reciprocal"])
def test_stacked_gates_change_neither_logits_nor_gradients(
    cell_type: str, peepholes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"cell_options": {"peepholes": peepholes}} if cell_type == "lstm" else {}
    tower = _tower(cell_type, normalization="layernorm", dropout=0.3, dropout_recurrent=0.3, **options)
    tower, x = tower.double(), torch.randn(3, 3, 13, 17, dtype=torch.float64)
    reference = copy.deepcopy(tower)
    expected, expected_left = _train(reference, x)
    monkeypatch.setattr("models.convolution.stacks_gates", lambda device: True)  # as on a GPU
    for recompute in (False, True):
        stacked = copy.deepcopy(tower)
        stacked.recompute = recompute
        logits, left = _train(stacked, x)
        torch.testing.assert_close(logits, expected)
        assert left.keys() == expected_left.keys()
        for name, value in expected_left.items():
            torch.testing.assert_close(left[name], value, msg=name)


@pytest.mark.parametrize("cell_type", CELLS)
def test_channels_last_changes_nothing(cell_type: str) -> None:
    tower = _tower(cell_type, normalization="layernorm", time_steps=3).double()
    other = prepare_model(copy.deepcopy(tower), channels_last=True)
    assert other.state_dict().keys() == tower.state_dict().keys()
    assert other.cell_blocks[1].state_dict().keys() == tower.cell_blocks[1].state_dict().keys()
    _agree(other, tower, torch.randn(3, 3, 13, 17, dtype=torch.float64))


@pytest.mark.parametrize("normalization", ["none", "batchnorm", "layernorm", "instancenorm"])
@pytest.mark.parametrize("cell_type", RECURRENT)
def test_states_keep_their_precision_under_bfloat16_autocast(cell_type: str, normalization: str) -> None:
    tower = _tower(cell_type, normalization=normalization, time_steps=3)
    x = torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, hidden = tower(x, return_all=True, return_hidden=True)
    kinds = {s.dtype for step in hidden for s in (step[-1] if isinstance(step[-1], tuple) else step[-1:])}
    assert kinds == {torch.bfloat16}
    torch.stack(logits).float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tower.parameters())


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("normalization", ["none", "layernorm"])
@pytest.mark.parametrize("cell_type", CELLS)
def test_every_parameter_has_a_gradient_for_any_number_of_steps(
    cell_type: str, normalization: str, steps: int
) -> None:
    tower = _tower(cell_type, normalization=normalization, time_steps=3)
    tower(torch.randn(2, 3, 13, 17), time_steps=steps).sum().backward()
    assert [name for name, p in tower.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("how", ["step", "model"])
def test_compilation_changes_neither_numbers_nor_names(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = torch.compile

    def traced_only(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
        return compiler(function, **{**settings, "backend": "aot_eager"})

    monkeypatch.setattr(torch, "compile", traced_only)
    tower = _tower("gru", normalization="layernorm", time_steps=3)
    reference = copy.deepcopy(tower)
    prepare_model(tower, compile=how)
    assert tower.state_dict().keys() == reference.state_dict().keys()
    _agree(tower, reference, torch.randn(3, 3, 13, 17))


def _run_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often compiled code has run; nothing is generated."""
    compiler, ran = torch.compile, [0]

    def counting(graph: torch.fx.GraphModule, example: Any) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            ran[0] += 1
            return graph.forward(*arguments)

        return run

    monkeypatch.setattr(
        torch, "compile", lambda f, **settings: compiler(f, **{**settings, "backend": counting})
    )
    torch._dynamo.reset()
    return ran


@pytest.mark.parametrize(
    ("cell_type", "normalization"),
    [("gru", "batchnorm_per_step"), ("lstm", "layernorm"), ("reciprocal", "batchnorm"), ("hgru", "none")],
)
def test_every_step_of_every_block_runs_compiled_whatever_the_batch(
    cell_type: str, normalization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = _run_steps(monkeypatch)
    widths = {"filters": [2, 3, 4, 5, 6], "pools": [False] * 5}
    tower = _tower(cell_type, normalization=normalization, time_steps=5, **widths)
    prepare_model(tower, compile="step")
    x = torch.randn(3, 3, 6, 6)
    for images in (x, x[:2]):
        tower.train()(images).sum().backward()
        with torch.no_grad():
            tower.eval()(images)
    ran[0] = 0
    for images in (x, x[:2]):
        tower.train()(images).sum().backward()
        with torch.no_grad():
            tower.eval()(images)
    assert ran[0] >= 4 * 4 * 5  # passes, blocks with a memory, steps


def test_a_copy_of_a_compiled_model_has_weights_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    _run_steps(monkeypatch)
    tower, x = _tower("gru", normalization="layernorm", time_steps=2).eval(), torch.randn(1, 3, 13, 17)
    expected = tower(x)
    prepare_model(tower, compile="step")
    copied, pickled = copy.deepcopy(tower), pickle.loads(pickle.dumps(tower))
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.zero_()
    for other in (copied, pickled):
        torch.testing.assert_close(other(x), expected)


@pytest.mark.parametrize("normalization", ["instancenorm", "batchnorm_per_step"])
def test_a_gammanet_is_compiled_step_by_step_with_recomputation_too(
    normalization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = _run_steps(monkeypatch)
    settings = {"filters": [2, 2, 4, 2, 2], "first_kernel": 3, "first_stride": 1, "gamma_head": "pooled"}
    net = GammaNet(3, tower_type="small", normalization=normalization, time_steps=5, **settings).double()
    reference = copy.deepcopy(net)
    net.recompute = True
    prepare_model(net, compile="step")
    _agree(net, reference, torch.randn(2, 3, 32, 32, dtype=torch.float64))
    assert ran[0] == 5 + 4


@pytest.mark.parametrize("steps", range(1, 20))
def test_segments_hold_every_step_and_peak_lower_than_all_steps_together(steps: int) -> None:
    lengths = segment_lengths(steps)
    assert sum(lengths) == steps
    assert lengths == sorted(lengths, reverse=True)
    peak = max(length + STATE_SIZE * before for before, length in enumerate(lengths))
    assert peak < steps or steps == 1


@pytest.mark.parametrize("cell_type", RECURRENT)
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_recomputation_keeps_less_for_the_backward_pass_and_takes_the_last_segment_as_it_is(
    cell_type: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, taken = {}, []
    step = CELLS[cell_type].step
    monkeypatch.setattr(CELLS[cell_type], "step", lambda *a, **k: (taken.append(1), step(*a, **k))[1])
    for recompute in (False, True):
        tower = _tower(cell_type, normalization="layernorm", time_steps=steps, recompute=recompute)
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = tower(torch.randn(2, 3, 32, 32)).square().sum()
        taken.clear()
        loss.backward()
        kept[recompute] = sum(sizes.values())
    assert kept[True] < kept[False] or steps == 1
    assert len(taken) == 2 * (steps - segment_lengths(steps)[-1])  # blocks


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
@pytest.mark.parametrize(("how", "cell_type"), [("step", "gru"), ("step", "lstm"), ("model", "rnn")])
def test_the_real_compiler_changes_no_numbers(how: str, cell_type: str) -> None:
    tower = _tower(cell_type, normalization="layernorm", time_steps=3).double()
    reference = copy.deepcopy(tower)
    torch._dynamo.reset()
    _agree(prepare_model(tower, compile=how), reference, torch.randn(3, 3, 13, 17, dtype=torch.float64))


def test_unknown_and_impossible_ways_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown compile 'on'; allowed: off, step, model"):
        prepare_model(_tower("rnn"), compile="on")
    with pytest.raises(ValueError, match='compile "model" and recompute exclude each other'):
        prepare_model(_tower("rnn", recompute=True), compile="model")
