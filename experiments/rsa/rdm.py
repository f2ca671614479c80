"""Representational dissimilarity matrices, accumulated in float64 over slices of channels.

Shape letters: N stimuli, D channels (all units of a layer), P = N (N - 1) / 2 pairs of stimuli.
An RDM is kept as its P dissimilarities in the order of numpy.triu_indices(N, 1), which is rsatoolbox's order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

CHANNELS_AT_ONCE = 1 << 14
"""Channels converted to float64 at a time: 80 MB for 600 stimuli."""


class RDMAccumulator:
    """Squared Euclidean distances between N patterns, divided by the number of channels.

    This is rsatoolbox's calc_rdm(method="euclidean"). Distances are sums over channels, so slices of channels
    may come one after the other and nothing but the N x N sum is kept. Each channel is centred first: that
    changes no distance and keeps digits that the expansion |x|^2 + |y|^2 - 2xy would lose.
    """

    def __init__(self, stimuli: int) -> None:
        """Args: stimuli: N."""
        self.stimuli = stimuli
        self.channels = 0
        self._products: Tensor | None = None

    def add(self, activations_ND: Tensor) -> None:
        """Add a slice of channels, (N, any number) of any floating type, on any device."""
        if activations_ND.ndim != 2 or len(activations_ND) != self.stimuli:
            raise ValueError(f"expected ({self.stimuli}, D), got shape {tuple(activations_ND.shape)}")
        for part in activations_ND.split(CHANNELS_AT_ONCE, dim=1):
            centred = part.double()
            centred = centred - centred.mean(dim=0, keepdim=True)
            product = centred @ centred.T
            self._products = product if self._products is None else self._products.add_(product)
        self.channels += activations_ND.shape[1]

    def vector(self) -> NDArray[np.float64]:
        """The (P,) dissimilarities; ValueError where activations were not finite."""
        if self._products is None:
            raise ValueError("no activations were added")
        squares = self._products.diagonal()
        distances = squares[:, None] + squares[None, :] - 2 * self._products
        matrix = (distances.clamp_(min=0) / self.channels).cpu().numpy()
        vector: NDArray[np.float64] = matrix[np.triu_indices(self.stimuli, 1)]
        if not np.isfinite(vector).all():
            raise ValueError("activations are not finite")
        return vector


def label_rdm(classes: NDArray[np.integer], num_classes: int) -> NDArray[np.float64]:
    """RDM of one-hot labels: 0 within a class, 2 / num_classes between classes. classes: (N,)."""
    i, j = np.triu_indices(len(classes), 1)
    return np.where(classes[i] == classes[j], 0.0, 2.0 / num_classes)
