"""What tests of the search share: a small spec, and studies that need no disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from search.spec import SearchSpec
from search.study import SearchStudy
from tests.commands import SMALL

FINISHED = {"finished": True}


def make_spec(**search: Any) -> SearchSpec:
    """Nine epochs, two parameters; `search` overrides."""
    fixed = {key: value for key, value in SMALL.items() if key not in ("learning_rate", "time_steps")}
    return SearchSpec(
        train={**fixed, "epochs": 9},
        space={
            "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "time_steps": {"type": "int", "low": 1, "high": 4},
        },
        search={"sampler": {"startup_trials": 2}, **search},
    )


def row(epoch: int, value: float, **more: Any) -> dict[str, Any]:
    """One report."""
    return {"epoch": epoch, "val_acc": value, **more}


@pytest.fixture
def spec() -> SearchSpec:
    """ASHA at 1 and 3 of nine epochs."""
    return make_spec(scheduler={"grace_period": 1, "reduction_factor": 3})


@pytest.fixture
def memory() -> Callable[[SearchSpec], SearchStudy]:
    """Studies in memory."""
    return lambda spec: SearchStudy(Path("/nowhere/search"), spec, InMemoryStorage())
