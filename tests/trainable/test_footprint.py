"""What a step keeps in memory is known before it is made; what cannot fit is refused at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import ROOT
from tests.trainable.sessions import assert_same, run
from trainable.config import TrainConfig
from trainable.footprint import Footprint, footprint, free_bytes, images_that_fit
from trainable.memory import TooLarge, is_out_of_memory

MEASURE = """
import json, sys, torch
from torch.nn.functional import cross_entropy
from models import build_model
from trainable.memory import peak_gib, reset_peak
config, images, size = json.loads(sys.argv[1])
cpu, model = torch.device("cpu"), build_model(config, 1000).train()
x, y = torch.randn(images, 3, size, size), torch.zeros(images, dtype=torch.int64)
reset_peak(cpu)
before = peak_gib(cpu)
cross_entropy(model(x), y).backward()
print(peak_gib(cpu) - before)
"""


def settings(**more: Any) -> dict[str, Any]:
    return {
        "dataset": "digits",
        "cell_type": "gru",
        "time_steps": 4,
        "skip_first": True,
        "normalization": "layernorm",
        "batch_size": 32,
        "epochs": 1,
        "learning_rate": 0.01,
        **more,
    }


@pytest.mark.parametrize("cell_type", ["gru", "hgru"])
def test_the_bound_is_below_the_real_peak_and_not_far_below(cell_type: str) -> None:
    config = settings(cell_type=cell_type)
    need = footprint(TrainConfig(**config), 1000, 128)
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps([config, 16, 128])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # Activations and gradients; the process' weights were there before, and there is no optimizer.
    bound = (need.fixed // 4 + 16 * need.per_image) / 2**30
    assert bound < float(measured.stdout) * 1.02
    assert bound > float(measured.stdout) * 0.6


def test_the_bound_grows_with_time_steps_and_width_and_hardly_with_recompute() -> None:
    def per_image(**more: Any) -> int:
        return footprint(TrainConfig(**settings(**more)), 10, 128).per_image

    plain = per_image()
    assert 1.6 < per_image(time_steps=8) / plain < 2.4
    assert per_image(recompute=True) < 0.45 * plain  # its last step as it is, and states
    assert per_image(precision="bf16") == plain // 2
    small = {"filters": [8, 16], "pools": [True, True]}
    assert per_image(**small) < 0.2 * plain


@pytest.mark.parametrize(
    "more",
    [
        {"cell_type": "conv"},
        {"cell_type": "lstm"},
        {"cell_type": "reciprocal"},
        {"cell_type": "fgru", "normalization": "instancenorm"},
        {"cell_type": "hgru", "hidden_init": "random"},
        {"cell_type": "rnn", "normalization": "batchnorm_per_step", "dropout_recurrent": 0.2, "dropout": 0.1},
        {"model_base": "gammanet", "tower_type": "small", "skip_first": False},
        {"model_base": "resnet18", "normalization": "batchnorm", "skip_first": False},
    ],
)
def test_every_network_has_a_footprint_and_finding_it_draws_nothing(more: dict[str, Any]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    need = footprint(TrainConfig(**settings(**more)), 10, 224)
    assert torch.equal(torch.get_rng_state(), before)
    assert need.fixed > 0
    assert need.per_image > 10 * 2**20


def test_images_are_halved_until_they_fit_and_one_that_does_not_is_refused() -> None:
    need = Footprint(fixed=1000, per_image=100)
    assert images_that_fit(need, 32, 4200) == 32
    assert images_that_fit(need, 32, 4199) == 16
    assert images_that_fit(need, 25, 1700) == 7
    with pytest.raises(
        TooLarge, match=r"out of memory before the first step: one image .* GiB are free"
    ) as e:
        images_that_fit(need, 32, 1099)
    assert is_out_of_memory(e.value)


def test_a_run_that_cannot_fit_is_refused_and_one_that_can_starts_smaller(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small |= {"epochs": 1, "normalization": "batchnorm"}
    need = footprint(TrainConfig(**small), 10, 32)
    monkeypatch.setattr("trainable.loop.free_bytes", lambda device: need.of(1) - 1)
    with pytest.raises(TooLarge, match="before the first step"):
        run(tmp_path / "refused", small)
    assert not (tmp_path / "refused" / "result.json").exists()
    run(tmp_path / "unchecked", {**small, "memory_check": False})
    monkeypatch.setattr("trainable.loop.free_bytes", lambda device: need.of(40))
    weights, session = run(tmp_path / "smaller", small)
    assert session.reports[0]["micro_batch"] == 32  # 128, 64, 32
    assert session.reports[0]["notes"] == [
        "memory for 32 of 128 images at a time: starting with 32 (the effective batch stays the same)"
    ]
    expected, _ = run(tmp_path / "given", {**small, "batch_max": 32, "memory_check": False})
    assert_same(weights, expected)


def test_free_memory_is_less_than_the_machine_has() -> None:
    free = free_bytes(torch.device("cpu"))
    with open("/proc/meminfo") as file:
        total = 1024 * int(file.readline().split()[1])
    assert 2**26 < free < total
