"""Every recorded cell of the original implementation, reproduced: outputs, gradients, batch statistics."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from models.cells import build_cell


def _build(settings: dict[str, Any]) -> torch.nn.Module:
    thesis_exact = settings["cell"].endswith("_thesis")
    return build_cell(
        settings["cell"].removesuffix("_thesis"),
        settings["in_channels"],
        settings["out_channels"],
        kernel_size=settings["kernel_size"],
        stride=settings["stride"],
        activation=settings["activation"],
        normalization=settings["normalization"],
        time_steps=settings["time_steps"],
        preconv_kernel=settings.get("preconv_kernel", 1),
        thesis_exact=thesis_exact,
    )


def _unroll(cell: torch.nn.Module, frames: Tensor, state: Any) -> Tensor:
    outputs = []
    for t, frame in enumerate(frames):
        output, state = cell(frame, state, t)
        outputs.append(output)
    return torch.stack(outputs)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_cell_reproduces_the_recorded_sequence(
    golden_cell: str, mode: str, golden: Callable[[str], Any], assert_close: Callable[..., None]
) -> None:
    record = golden(golden_cell)
    cell = _build(record.settings)
    cell.load_state_dict(record.under("state."), strict=True)
    cell.train(mode == "train")
    frames = record["input"].clone().requires_grad_()

    output = _unroll(cell, frames, record.get("init_state"))
    assert_close(output, record[f"{mode}.output"], "output")

    (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    assert_close(frames.grad, record[f"{mode}.grad_input"], "input gradient")
    recorded = record.under(f"{mode}.grad.")
    parameters = dict(cell.named_parameters())
    assert parameters.keys() == recorded.keys()
    whole = torch.stack([gradient.norm() for gradient in recorded.values()]).norm()
    for name, gradient in recorded.items():
        # Where a normalization cancels a bias, what is left is rounding: the recordings themselves are up to
        # 3e-7 of the whole gradient away from the same computation in float64.
        assert_close(parameters[name].grad, gradient, name, floor=5e-7 * whole.item())

    if mode == "train":
        after = record.under("after.")
        assert after.keys() == dict(cell.named_buffers()).keys()
        for name, buffer in cell.named_buffers():
            assert_close(buffer, after[name], name)
