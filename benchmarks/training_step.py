"""What the benchmarks step and memory measure: one training step of a tower, ours or the reference.

forward + cross-entropy + backward + SGD with momentum, on fixed random images and labels.
"""

from __future__ import annotations

import argparse
import copy
import platform
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import reference
from models import build_model
from models.execution import prepare_model

CLASSES = 1000


@dataclass(frozen=True)
class Case:
    """One tower on one kind of images, and how our side computes it."""

    cell_type: str
    time_steps: int
    batch: int = 8
    size: int = 224
    tower_type: str = "normal"
    normalization: str = "layernorm"
    device: str = "cpu"
    precision: str = "fp32"
    baseline: str = "same"
    channels_last: bool = False
    compile: str = "off"
    recompute: bool = False

    @property
    def tower(self) -> dict[str, Any]:
        """The settings that both sides share."""
        return {
            "tower_type": self.tower_type,
            "cell_type": self.cell_type,
            "time_steps": self.time_steps,
            "normalization": self.normalization,
            "skip_first": True,
        }

    def images(self) -> tuple[Tensor, Tensor]:
        """Random images and labels, the same ones for every case of this batch and size."""
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(self.batch, 3, self.size, self.size, generator=generator)
        labels = torch.randint(CLASSES, (self.batch,), generator=generator)
        return x.to(self.device), labels.to(self.device)


class Step:
    """A model, its optimizer and its images; called, it takes one training step and returns the loss."""

    def __init__(self, model: nn.Module, case: Case, precision: str) -> None:
        dtype = torch.float64 if precision == "fp64" else torch.float32
        self.model = model.to(case.device, dtype).train()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        self.images, self.labels = case.images()
        self.images = self.images.to(dtype)
        self.device, self.low = torch.device(case.device), precision == "bf16"

    def __call__(self) -> Tensor:
        loss = self.backward()
        self.optimizer.step()
        return loss

    def backward(self) -> Tensor:
        """The step without its last part: the loss, and fresh gradients in the model."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            loss = F.cross_entropy(self.model(self.images), self.labels)
        loss.backward()
        return loss.detach()

    def on_the_first(self, images: int) -> Step:
        """The step of the same model on fewer images."""
        step = copy.copy(self)
        step.images, step.labels = self.images[:images], self.labels[:images]
        return step

    def gradient(self) -> Tensor:
        """All gradients of the last backward pass, in the order of the names, in one vector on the CPU."""
        parameters = {name.replace("_orig_mod.", ""): p for name, p in self.model.named_parameters()}
        gradients = [parameters[name].grad for name in sorted(parameters)]
        return torch.cat([g.double().flatten().cpu() for g in gradients if g is not None])

    def wait(self) -> None:
        """Return when the device has done what was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def our_step(case: Case) -> Step:
    """The project's tower, with the case's ways of running it."""
    torch.manual_seed(0)
    model = _our_tower(case).to(case.device)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.squeeze().ndim == 1:
                # As after training: where all biases are zero, one that is forgotten goes unseen.
                parameter.add_(0.05 * torch.randn(parameter.shape).to(case.device))
    prepare_model(model, compile=case.compile, channels_last=case.channels_last)
    return Step(model, case, case.precision)


def _our_tower(case: Case) -> nn.Module:
    settings = {"model_base": "ff_tower", **case.tower, "recompute": case.recompute}
    return build_model(settings, CLASSES)


def reference_step(case: Case, weights: dict[str, Tensor], precision: str) -> Step:
    """The plain tower with the same weights; it knows no way of running but the plain one."""
    model = reference.Tower(CLASSES, **case.tower)
    model.load_state_dict(weights, strict=True)
    return Step(model, case, precision)


def multiply_accumulates(case: Case) -> dict[str, float]:
    """Per image, of both sides' convolutions, forward and backward; from shapes, nothing is computed."""
    counts = {}
    with torch.device("meta"):
        towers = {"reference": reference.Tower(CLASSES, **case.tower), "ours": _our_tower(case)}
        images = torch.empty(case.batch, 3, case.size, case.size)
    for side, tower in towers.items():
        with FlopCounterMode(display=False) as counter:
            tower(images).sum().backward()
        counts[side] = counter.get_total_flops() / 2 / case.batch
    return counts


# --- command line -------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser, cells: list[str], steps: list[int]) -> None:
    """The options that both benchmarks share."""
    add = parser.add_argument
    add("--cells", nargs="+", default=cells, choices=reference.CELL_TYPES, help="(default: %(default)s)")
    add("--time-steps", nargs="+", type=int, default=steps, metavar="T", help="(default: %(default)s)")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--precision", choices=["fp32", "bf16"], default="fp32", help="bf16 is autocast (default: fp32)")
    add("--channels-last", action="store_true", help="our side in channels_last")
    add("--compile", choices=["off", "step", "model"], default="off", help="torch.compile of our side")
    add("--batch", type=int, default=8, help="images per step (default: 8)")
    add("--size", type=int, default=224, help="side of the images in pixels (default: 224)")
    add("--tower-type", default="normal", choices=reference.FILTERS, help="(default: normal)")
    add("--normalization", default="layernorm", help="(default: layernorm)")
    add("--threads", type=int, default=torch.get_num_threads(), help="of the CPU (default: %(default)s)")
    add("--json", type=Path, metavar="OUT", help="write the figures there too")


def cases(args: argparse.Namespace) -> list[Case]:
    """One case per cell and number of steps, in the order they were asked for."""
    shared = {f.name: getattr(args, f.name) for f in fields(Case) if hasattr(args, f.name)}
    shared.pop("time_steps", None)
    return [
        Case(cell_type=cell, time_steps=steps, **shared) for cell in args.cells for steps in args.time_steps
    ]


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or "cpu"
    return {"device": name, "torch": torch.__version__, "threads": torch.get_num_threads()}
