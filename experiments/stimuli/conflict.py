"""Shape against texture: the silhouette of one object filled with the texture of another.

These are the "filled silhouettes" of Geirhos et al. 2019 (arXiv:1811.12231). The texture is the largest
square patch inside the other object, continued by mirroring.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt

from experiments.errors import InputError
from experiments.stimuli import shapebias
from experiments.stimuli.item import Item, Mask, Pixels, not_empty, resize


class ShapeBias(NamedTuple):
    """How often decisions followed shape and texture."""

    shape: int
    """Images whose decision was the class of the shape."""

    texture: int
    """Images whose decision was the class of the texture."""

    images: int
    """Images whose shape and texture are of different classes; others don't count."""

    @property
    def value(self) -> float:
        """shape / (shape + texture); NaN where no decision followed either."""
        followed = self.shape + self.texture
        return self.shape / followed if followed else float("nan")


def shape_bias(decisions: NDArray, shapes: NDArray, textures: NDArray) -> ShapeBias:
    """Shape bias of (N,) decisions on images of the given classes of shape and texture.

    Pairs of the same class say nothing and are left out, as in model-vs-human.
    """
    conflict = shapes != textures
    return ShapeBias(
        int((decisions == shapes)[conflict].sum()),
        int((decisions == textures)[conflict].sum()),
        int(conflict.sum()),
    )


def texture_partners(class_ids: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """For each item the position of an item of another class; InputError with a single class.

    Every item gives its texture about equally often.
    """
    if len(np.unique(class_ids)) < 2:
        raise InputError("shape bias needs images of at least two classes")
    random = np.random.default_rng([seed, 2])
    partners = random.permutation(len(class_ids))
    for i in np.flatnonzero(class_ids[partners] == class_ids):
        partners[i] = random.choice(np.flatnonzero(class_ids != class_ids[i]))
    return partners


def texture_patch(image: Pixels, mask: Mask) -> Pixels:
    """The largest square of the image that lies inside the mask, (side, side, 3)."""
    # Chessboard distance d to the outside: a square of side 2d - 1 around the pixel fits.
    depth = distance_transform_cdt(np.pad(mask, 1), metric="chessboard")[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    reach = int(depth[y, x]) - 1
    return image[y - reach : y + reach + 1, x - reach : x + reach + 1]


def cue_conflict(shape: Item, texture: Item, size: int) -> Pixels:
    """The silhouette of one item filled with the other's texture, (size, size, 3)."""
    cutout = not_empty(shapebias.cut_out(shape), shape)
    patch = texture_patch(texture.image, texture.mask)
    height, width = cutout.mask.shape
    filled = np.pad(
        patch,
        ((0, max(0, height - len(patch))), (0, max(0, width - patch.shape[1])), (0, 0)),
        mode="symmetric",
    )[:height, :width]
    return resize(np.where(cutout.mask[:, :, None], filled, np.uint8(shape.ground)), size)
