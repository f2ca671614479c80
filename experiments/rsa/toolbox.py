"""RDMs to and from rsatoolbox (pip install rsatoolbox), for its plots and its other methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from experiments.errors import InputError

if TYPE_CHECKING:
    import rsatoolbox


def to_rsatoolbox(
    rdms: Mapping[str, NDArray[np.float64]], classes: Sequence[object], images: Sequence[str]
) -> rsatoolbox.rdm.RDMs:
    """RDMs object with one RDM per entry.

    Args:
        rdms: Name (rdm descriptor "name") to (P,) dissimilarities.
        classes: Class of each stimulus, pattern descriptor "classes".
        images: Name of each stimulus, pattern descriptor "images".
    """
    try:
        from rsatoolbox.rdm import RDMs
    except ImportError:
        raise InputError("rsatoolbox is not installed: pip install rsatoolbox") from None
    return RDMs(
        np.stack(list(rdms.values())),
        dissimilarity_measure="squared euclidean",
        rdm_descriptors={"name": list(rdms)},
        pattern_descriptors={"classes": list(classes), "images": list(images)},
    )


def from_rsatoolbox(rdms: rsatoolbox.rdm.RDMs) -> dict[str, NDArray[np.float64]]:
    """The inverse: (P,) dissimilarities by the descriptor "name", or by index where there is none."""
    vectors = rdms.get_vectors()
    names = rdms.rdm_descriptors.get("name", range(len(vectors)))
    return {
        str(name): np.asarray(vector, dtype=np.float64) for name, vector in zip(names, vectors, strict=True)
    }
