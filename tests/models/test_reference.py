"""The plain reference of benchmarks/ is the recorded original, and the project's models are the reference."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import reference
from models.cells import CELLS, build_cell
from models.tower import FeedForwardTower

# Where a normalization cancels a bias, its gradient is rounding: compared on the scale of the whole gradient.
ROUNDING = 5e-7


def _unroll(cell: nn.Module, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
    outputs = []
    for t, frame in enumerate(frames):
        output, state = cell(frame, state, t)
        outputs.append(output)
    return torch.stack(outputs), state


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _whole(gradients: dict[str, Tensor]) -> float:
    return torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_reference_cell_is_the_recorded_one(
    golden_cell: str, mode: str, golden: Callable[[str], Any], assert_close: Callable[..., None]
) -> None:
    record = golden(golden_cell)
    settings = record.settings
    cell = reference.build_cell(
        settings["cell"].removesuffix("_thesis"),
        settings["in_channels"],
        settings["out_channels"],
        kernel_size=settings["kernel_size"],
        stride=settings["stride"],
        activation=settings["activation"],
        normalization=settings["normalization"],
        time_steps=settings["time_steps"],
        preconv_kernel=settings.get("preconv_kernel", 1),
        thesis_exact=settings["cell"].endswith("_thesis"),
    )
    cell.load_state_dict(record.under("state."), strict=True)
    cell.train(mode == "train")
    frames = record["input"].clone().requires_grad_()

    output, state = _unroll(cell, frames, record.get("init_state"))
    assert_close(output, record[f"{mode}.output"], "output")
    if record.get(f"{mode}.final_c") is not None:
        assert_close(state[0], record[f"{mode}.final_h"], "last h")
        assert_close(state[1], record[f"{mode}.final_c"], "last c")

    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    assert_close(frames.grad, record[f"{mode}.grad_input"], "input gradient")
    recorded, gradients = record.under(f"{mode}.grad."), _gradients(cell)
    assert gradients.keys() == recorded.keys()
    for name, gradient in recorded.items():
        assert_close(gradients[name], gradient, name, floor=ROUNDING * _whole(recorded))
    if mode == "train":
        for name, buffer in cell.named_buffers():
            assert_close(buffer, record[f"after.{name}"], name)


def test_reference_tower_is_the_recorded_one(
    golden_tower: str, golden: Callable[[str], Any], assert_close: Callable[..., None]
) -> None:
    record = golden(golden_tower)
    unused = ("num_classes", "seed", "do_preconv")
    settings = {key: value for key, value in record.settings.items() if key not in unused}
    tower = reference.Tower(record.settings["num_classes"], **settings)
    tower.load_state_dict(record.under("state."), strict=True)
    x = record["input"].float()

    tower.eval()
    with torch.no_grad():
        assert_close(tower(x, return_all=True), record["eval.logits_per_step"], "logits of each step")
        if record.get("eval.logits_more_steps") is not None:
            more = tower(x, time_steps=settings["time_steps"] + 3)
            assert_close(more, record["eval.logits_more_steps"], "three more steps")

    tower.train()
    loss = F.cross_entropy(tower(x), torch.tensor([1, 5]))
    assert_close(loss, record["train.loss"], "loss")
    loss.backward()
    recorded = record.under("train.gradnorm.")
    for name, gradient in _gradients(tower).items():
        assert_close(gradient.norm(), recorded[name], name, floor=ROUNDING * _whole(recorded))


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("normalization", ["none", "batchnorm", "layernorm", "instancenorm", "groupnorm"])
@pytest.mark.parametrize("cell_type", CELLS)
def test_cell_is_the_reference_at_odd_sizes(
    cell_type: str, normalization: str, mode: str, assert_close: Callable[..., None]
) -> None:
    activation = {"rnn": "tanh", "gru": "elu", "lstm": "silu", "reciprocal": "gelu"}.get(cell_type, "relu")
    settings: dict[str, Any] = {
        "kernel_size": 5,
        "stride": 2,
        "activation": activation,
        "normalization": normalization,
        "preconv_kernel": 3,
        "time_steps": 4,
    }
    cell = build_cell(cell_type, 3, 6, **settings).train(mode == "train")
    _perturb(cell)
    plain = reference.build_cell(cell_type, 3, 6, **settings).train(mode == "train")
    plain.load_state_dict(cell.state_dict(), strict=True)

    x = torch.randn(4, 2, 3, 17, 23)
    frames, plain_frames = x.clone().requires_grad_(), x.clone().requires_grad_()
    output, _ = _unroll(cell, frames)
    expected, _ = _unroll(plain, plain_frames)
    assert_close(output, expected, "output")
    weights = torch.randn_like(expected)
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_close(frames.grad, plain_frames.grad, "input gradient")
    _same_gradients(cell, plain, assert_close)
    for name, buffer in plain.named_buffers():
        assert_close(cell.get_buffer(name), buffer, name)


@pytest.mark.parametrize("skip_first", [True, False])
@pytest.mark.parametrize("cell_type", CELLS)
def test_tower_is_the_reference_at_odd_sizes(
    cell_type: str, skip_first: bool, assert_close: Callable[..., None]
) -> None:
    settings: dict[str, Any] = {
        "cell_type": cell_type,
        "time_steps": 3,
        "filters": [4, 6, 5],
        "pools": [True, False, True],
        "normalization": "batchnorm",
        "activation": "elu",
        "skip_first": skip_first,
        "first_kernel": 5,
    }
    tower = FeedForwardTower(5, **settings)
    _perturb(tower)
    plain = reference.Tower(5, **settings)
    plain.load_state_dict(tower.state_dict(), strict=True)
    x, labels = torch.randn(3, 3, 31, 47), torch.tensor([0, 4, 2])

    loss, expected = F.cross_entropy(tower(x), labels), F.cross_entropy(plain(x), labels)
    assert_close(loss, expected, "loss")
    loss.backward()
    expected.backward()
    _same_gradients(tower, plain, assert_close)
    for name, buffer in plain.named_buffers():
        assert_close(tower.get_buffer(name), buffer, name)
    tower.eval()
    plain.eval()
    with torch.no_grad():
        logits = torch.stack(tower(x, time_steps=5, return_all=True))
        assert_close(logits, plain(x, time_steps=5, return_all=True), "logits of more steps")


def _perturb(model: nn.Module) -> None:
    """Make every vector of parameters differ between channels, so that none is applied to the wrong one."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.squeeze().ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))


def _same_gradients(model: nn.Module, plain: nn.Module, assert_close: Callable[..., None]) -> None:
    gradients, expected = _gradients(model), _gradients(plain)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(gradients[name], gradient, name, floor=2 * ROUNDING * _whole(expected))
