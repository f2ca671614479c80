"""One pass of the network over stimuli: logits and hidden states of all time steps at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from data import Preprocessing
from experiments.errors import InputError
from experiments.sources import NO_CLASS, Source
from experiments.stimuli.item import Pixels
from experiments.stimuli.make import Aspect, Protocol, make_stimulus

DECISIONS = ("argmax", "restricted", "mean")
"""How a network with more outputs than the data set has classes decides:

argmax      the strongest output; where it belongs to no class of the data set the decision is wrong (thesis)
restricted  the strongest output among those that belong to one
mean        the class whose outputs have the highest mean probability (model-vs-human)

Where outputs are not finite, as of a network that explodes after more steps than it was trained with, no
class is decided for.
"""


def stimulus_batches(
    source: Source,
    stimulus: str,
    size: int,
    batch_size: int,
    *,
    protocol: Protocol,
    seed: int,
    aspect: Aspect = "stretch",
    order: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Yield (pixels (B, size, size, 3) uint8, names) in the data set's order, or that of `order`."""
    indices = np.arange(len(source)) if order is None else order
    for start in range(0, len(indices), batch_size):
        items = [source.load(int(index)) for index in indices[start : start + batch_size]]
        pixels: list[Pixels] = [
            make_stimulus(item, stimulus, size, protocol=protocol, seed=seed, aspect=aspect) for item in items
        ]
        yield np.stack(pixels), [item.name for item in items]


def to_input(pixels: np.ndarray, preprocessing: Preprocessing, device: torch.device) -> Tensor:
    """(B, Y, X, 3) uint8 to the (B, 3, Y, X) float32 that the network was trained on."""
    images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float()
    mean = torch.tensor(preprocessing.mean, device=device)[:, None, None]
    std = torch.tensor(preprocessing.std, device=device)[:, None, None]
    return ((images - mean) / std).contiguous()


@torch.inference_mode()
def logits_over_time(model: nn.Module, images: Tensor, steps: Sequence[int]) -> list[Tensor]:
    """Logits (B, outputs) after each of `steps` (from 1), from one pass over the last of them."""
    every = model(images, time_steps=max(steps), return_all=True)
    return [every[step - 1] for step in steps]


@torch.inference_mode()
def states_over_time(model: nn.Module, images: Tensor, steps: Sequence[int]) -> dict[tuple[str, int], Tensor]:
    """States as (B, units) after each of `steps`, by name and step: hidden1, cell1, hidden2, ...

    `cell` is the second state of cells that have two. A state that is the same object in all steps, as that
    of a block without memory, comes once, under the first step.
    """
    _, hidden = model(images, time_steps=max(steps), return_all=True, return_hidden=True)
    result: dict[tuple[str, int], Tensor] = {}
    seen: dict[tuple[str, int], int] = {}
    for step in steps:
        for layer, state in enumerate(hidden[step - 1], start=1):
            parts = state if isinstance(state, tuple | list) else (state,)
            for name, part in zip(("hidden", "cell"), parts, strict=False):
                key = (f"{name}{layer}", part.data_ptr())
                if key not in seen:
                    seen[key] = step
                    result[f"{name}{layer}", step] = part.flatten(1)
    return result


def parse_steps(text: str | None, trained: int, stateless: bool) -> list[int]:
    """Time steps from "1-15", "7" or "1,3,7"; left out: 1 to those of the training.

    A network without memory has a single step, whatever is asked for.
    """
    if stateless:
        return [1]
    if text is None:
        return list(range(1, trained + 1))
    steps: set[int] = set()
    try:
        for part in text.split(","):
            low, dash, high = part.partition("-")
            steps.update(range(int(low), int(high if dash else low) + 1))
    except ValueError:
        steps = set()
    if not steps or min(steps) < 1:
        raise InputError(f"--time-steps: must be like 1-15, 7 or 1,3,7, counted from 1; got {text!r}")
    return sorted(steps)


def decide(logits: Tensor, outputs: np.ndarray, rule: str = "argmax") -> np.ndarray:
    """Class decision of each row of logits (B, outputs), by a rule of DECISIONS.

    Args:
        outputs: Class of each output, NO_CLASS where it has none.
    """
    class_of = torch.from_numpy(outputs).to(logits.device)
    if rule == "argmax":
        decided = class_of[logits.argmax(dim=1)]
    elif rule == "restricted":
        decided = class_of[logits.masked_fill(class_of == NO_CLASS, -torch.inf).argmax(dim=1)]
    else:
        kinds = torch.unique(class_of[class_of != NO_CLASS])
        probabilities = logits.double().softmax(dim=1)
        means = torch.stack([probabilities[:, class_of == kind].mean(dim=1) for kind in kinds], dim=1)
        decided = kinds[means.argmax(dim=1)]
    # The strongest of values that are not numbers would be the first, one and the same class for all images.
    return decided.where(logits.isfinite().all(dim=1), NO_CLASS).cpu().numpy()


def stateless(model: nn.Module) -> bool:
    """Whether one time step says all."""
    return bool(getattr(model, "stateless", False))


def pick_device(name: str | None) -> torch.device:
    """The named device; left out: the first GPU, or the CPU."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"--device: unknown device {name!r}; give cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device: no {name} here, there are {torch.cuda.device_count()} GPUs; give cpu")
    return device
