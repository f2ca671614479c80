"""From an item to its stimuli: names, seeds and the two protocols."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from experiments.errors import InputError
from experiments.stimuli import shapebias, thesis
from experiments.stimuli.item import Item, Pixels, not_empty, padded_to_square, resize, silhouette

Protocol = Literal["thesis", "shapebias"]
Aspect = Literal["stretch", "pad"]

STIMULI = ("normal", "foreground", "silhouette", "frankenstein", "serrated")
"""In the order of how much of the photo they keep."""

PROTOCOLS: tuple[str, ...] = get_args(Protocol)
ASPECTS: tuple[str, ...] = get_args(Aspect)

_SPELLINGS = {"shilouette": "silhouette", "shilouettes": "silhouette", "silhouettes": "silhouette"}


def canonical(name: str) -> str:
    """The name of a stimulus from any of its spellings; the thesis' code wrote `shilouette`."""
    known = _SPELLINGS.get(name.lower(), name.lower())
    if known not in STIMULI:
        raise InputError(f"unknown stimulus {name!r}; known are {', '.join(STIMULI)}")
    return known


def noise_of(name: str, seed: int, shape: Sequence[int]) -> NDArray[np.float64]:
    """Normally distributed noise that depends on the image's name and the seed alone."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32)).standard_normal(tuple(shape))


def make_stimulus(
    item: Item,
    stimulus: str,
    size: int,
    *,
    protocol: Protocol = "thesis",
    seed: int = 0,
    aspect: Aspect = "stretch",
) -> Pixels:
    """One stimulus, (size, size, 3): the same for every model, time step and process.

    Args:
        item: The photo and its object.
        stimulus: One of STIMULI.
        size: Side in pixels.
        protocol: Whose procedure; see the two modules.
        seed: Seed of the noise of `serrated`.
        aspect: "stretch" fills the square as both studies do; "pad" keeps the object's proportions.
    """
    maker = {"thesis": thesis, "shapebias": shapebias}[protocol]
    cutout = not_empty(maker.cut_out(item), item)
    if aspect == "pad":
        cutout = padded_to_square(cutout, item.ground)
    if stimulus == "normal":
        return resize(cutout.image, size)
    if stimulus == "foreground":
        return resize(np.where(cutout.mask[:, :, None], cutout.image, np.uint8(item.ground)), size)
    if stimulus == "silhouette":
        pixels = resize(silhouette(cutout.mask), size)
    elif stimulus == "frankenstein" and protocol == "thesis":
        pixels = thesis.frankenstein(cutout, size)
    elif stimulus == "frankenstein":
        pixels = resize(shapebias.frankenstein(cutout), size)
    elif stimulus == "serrated":
        noise = noise_of(item.name, seed, cutout.mask.shape)
        pixels = resize(maker.serrated(cutout, noise, item.unit), size)
    else:
        raise ValueError(f"unknown stimulus {stimulus!r}")
    return 255 - pixels if item.ground == 0 else pixels
