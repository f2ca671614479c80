import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


class Golden:
    """One recorded file: a flat dict of tensors and the settings it was recorded with."""

    def __init__(self, path: Path) -> None:
        self.tensors: dict[str, Any] = torch.load(path, weights_only=True)
        self.settings: dict[str, Any] = json.loads(self.tensors.pop("meta"))

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def get(self, key: str) -> Tensor | None:
        return self.tensors.get(key)

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {key[len(prefix) :]: value for key, value in self.tensors.items() if key.startswith(prefix)}


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    return lambda name: Golden(GOLDEN / f"{name}.pt")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument golden_cell or golden_tower runs once per recorded file."""
    for argument, folder in (("golden_cell", "cells"), ("golden_tower", "towers")):
        if argument in metafunc.fixturenames:
            names = sorted(path.stem for path in (GOLDEN / folder).glob("*.pt"))
            metafunc.parametrize(argument, [f"{folder}/{name}" for name in names], ids=names)


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """Norm of the difference at most 1e-5 times the norm of the reference, plus `floor`."""

    def check(actual: Tensor | None, reference: Tensor, what: str = "", floor: float = 0.0) -> None:
        assert actual is not None, f"{what}: nothing to compare"
        assert actual.shape == reference.shape, f"{what}: {tuple(actual.shape)}, not {tuple(reference.shape)}"
        difference = (actual.double() - reference.double()).norm().item()
        scale = reference.double().norm().item()
        assert difference <= 1e-5 * scale + floor, f"{what}: off by {difference:.3g}, norm {scale:.3g}"

    return check
