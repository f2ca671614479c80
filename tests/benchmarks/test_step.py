"""The verdict of benchmarks/step.py: rounding passes, an error of any size does not."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from benchmarks.step import EXACT_TOLERANCE, GRADIENT_TOLERANCE, SLACK, check, measure
from benchmarks.training_step import Case, multiply_accumulates
from models.cells import ConvGRUCell

GRU = Case("gru", time_steps=2, batch=2, size=69, channels_last=True)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _result(case: Case = GRU) -> dict[str, Any]:
    return check(case)[0]


def test_our_step_agrees_with_the_reference_and_both_are_timed() -> None:
    result = measure(GRU, repeats=1, clock="cpu")
    assert result["agrees"]
    assert min(result["seconds"]["ours"] + result["seconds"]["reference"]) > 0
    assert 0.1 < result["convolution_share"] < 1
    assert result["exact_gradient_error"] < 1e-12
    assert result["gradient_error"] < 1e-4


def test_a_candidate_off_by_a_thousandth_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = ConvGRUCell._candidate
    monkeypatch.setattr(ConvGRUCell, "_candidate", lambda self, x, t: 1.001 * candidate(self, x, t))
    result = _result()
    assert not result["agrees"]
    assert result["exact_gradient_error"] > 1e5 * EXACT_TOLERANCE


def test_a_wrong_gate_is_far_beyond_what_rounding_may_do(monkeypatch: pytest.MonkeyPatch) -> None:
    step = ConvGRUCell.step

    def thesis_rule(self: ConvGRUCell, *arguments: Any) -> Any:
        self.thesis_exact = True  # h' = z h + z c
        return step(self, *arguments)

    monkeypatch.setattr(ConvGRUCell, "step", thesis_rule)
    result = _result()
    assert not result["agrees"]
    assert result["gradient_error"] > 2 * GRADIENT_TOLERANCE
    assert result["gradient_error"] > 10 * SLACK["fp32"] * result["reference_gradient_error"]


@pytest.mark.parametrize(
    # Forward and backward of a normal tower at 224 px, GMAC per image.
    ("cell_type", "steps", "plain", "ours"),
    [("rnn", 3, 14.19, 10.36), ("gru", 7, 101.34, 80.01), ("lstm", 7, 195.88, 163.36)],
)
def test_multiply_accumulates_are_counted_from_shapes(
    cell_type: str, steps: int, plain: float, ours: float
) -> None:
    counts = multiply_accumulates(Case(cell_type, steps))
    assert counts["reference"] / 1e9 == pytest.approx(plain, abs=0.01)
    assert counts["ours"] / 1e9 == pytest.approx(ours, abs=0.01)


def test_convolutions_of_one_step_are_those_worked_out_by_hand() -> None:
    case = Case("conv", 1, batch=2, size=69)
    # Maps of 69 px: 32, 16, 8, 4, 2, and 1 that the head pads to 3. The images themselves want no gradient.
    forward = [64 * 3 * 49 * 32**2, 128 * 64 * 9 * 16**2, 256 * 128 * 9 * 8**2, 256 * 256 * 9 * 4**2]
    forward += [512 * 256 * 9 * 2**2, 1000 * 512 * 9]
    expected = 3 * sum(forward) - forward[0]
    assert multiply_accumulates(case) == {"reference": expected, "ours": expected}
