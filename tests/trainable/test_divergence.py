"""A run whose numbers explode ends at that step, with its cause."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainable.sessions import DyingSession
from trainable import state as state_module
from trainable.config import TrainConfig
from trainable.divergence import CAUSES, Verdict, Watch
from trainable.loop import WEIGHTS_FILE, train
from trainable.session import LocalSession
from trainable.tracking import read_rows


def diverge(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The one row of a run that diverges in its first epoch."""
    session = LocalSession(folder, device=torch.device("cpu"))
    train(TrainConfig(**settings), session)
    (row,) = session.reports
    assert not (folder / WEIGHTS_FILE).exists()
    return row


def test_a_huge_learning_rate_explodes_the_states_of_the_second_step(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    settings = {**small, "optimizer": "sgd", "normalization": "none", "learning_rate": 1e30}
    row = diverge(tmp_path, settings)
    assert (row["diverged"], row["diverged_step"], row["epoch"]) == ("exploding_state", 2, 1)
    assert math.isnan(row["val_acc"])
    assert "finished" not in row
    assert read_rows(tmp_path)[0]["diverged"] == "exploding_state"


class Poison(torch.autograd.Function):
    """Passes values on, and a gradient that is not finite back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * math.inf


class Sick(nn.Module):
    """A small network that falls ill in its n-th pass of training, in one place."""

    def __init__(self, where: str, when: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 10)
        self.where, self.when = where, when

    def forward(
        self, x: Tensor, time_steps: int | None = None, return_all: bool = False, return_hidden: bool = False
    ) -> Any:
        logits = state = self.linear(x.mean((2, 3)))
        self.when -= self.training
        if self.when == 0:
            if self.where == "exploding_state":
                state = state * math.inf
            elif self.where == "nan_loss":
                logits = logits * math.nan
            else:
                logits = Poison.apply(logits)
        out = [logits] if return_all else logits
        hidden = [state]
        return (out, [hidden] if return_all else hidden) if return_hidden else out


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("clip", [False, True])
def test_cause_and_step_are_those_of_the_first_number_that_is_not_finite(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch, cause: str, clip: bool
) -> None:
    monkeypatch.setattr(state_module, "build_model", lambda config, classes: Sick(cause, when=15))
    session = LocalSession(tmp_path, device=torch.device("cpu"))
    train(TrainConfig(**{**small, "do_gradient_clipping": clip}), session)
    # Eleven steps an epoch: the 15th is in the second.
    assert [row.get("diverged") for row in session.reports] == [None, cause]
    assert session.reports[-1]["diverged_step"] == 15
    assert len(read_rows(tmp_path)) == 2


def test_a_diverged_run_given_again_says_so_and_trains_no_more(tmp_path: Path, small: dict[str, Any]) -> None:
    settings = {**small, "optimizer": "sgd", "normalization": "none", "learning_rate": 1e30}
    row = diverge(tmp_path, settings)
    again = DyingSession(tmp_path, dies=1)
    train(TrainConfig(**settings), again)
    assert [(r["diverged"], r["diverged_step"]) for r in again.reports] == [
        (row["diverged"], row["diverged_step"])
    ]


def test_a_watch_names_the_first_cause_and_the_request_to_stop() -> None:
    watch = Watch(torch.device("cpu"))
    assert watch.push(1, torch.zeros(4)) is None
    assert watch.push(2, torch.tensor([0.0, 0, 0, 1])) == Verdict(2, None, True)
    assert watch.push(3, torch.tensor([0.0, 2, 1, 0])) == Verdict(3, "nan_loss", False)
    assert watch.flush() is None


def test_a_watch_over_a_gpu_reads_a_step_late_and_loses_none() -> None:
    watch = Watch(torch.device("cuda"))  # the flags may lie anywhere
    assert watch.push(1, torch.tensor([1.0, 1, 1, 0])) is None
    assert watch.push(2, torch.tensor([0.0, 1, 1, 0])) == Verdict(1, "exploding_state", False)
    assert watch.flush() == Verdict(2, "nan_loss", False)
