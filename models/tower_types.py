"""Channels and poolings of the towers."""

from collections.abc import Sequence
from typing import NamedTuple

from models.blocks import require_choice


class TowerType(NamedTuple):
    filters: list[int]
    """Channels of each block."""

    pools: list[bool]
    """Whether a 2x2 max pooling follows each block."""


# Five poolings each: 224 px -> 109 -> 54 -> 27 -> 13 -> 6 -> the 3x3 map of the head.
TOWER_TYPES: dict[str, TowerType] = {
    "normal": TowerType([64, 128, 256, 256, 512], [True] * 5),
    "more": TowerType(
        [64, 64, 128, 128, 256, 256, 512, 512], [True, False, True, False, True, False, True, True]
    ),
    "wider": TowerType([128, 512, 512, 512, 1024], [True] * 5),
    # The original gives no poolings. After the first block, so that all towers share a stem, and after
    # the last block of each width.
    "deeper": TowerType(
        [64, 64, 64, 128, 128, 256, 256, 512, 512, 512],
        [True, False, True, False, True, False, True, False, False, True],
    ),
}


def tower_widths(
    tower_type: str, filters: Sequence[int] | None, pools: Sequence[bool] | None
) -> tuple[list[int], list[bool]]:
    """Filters and poolings of every block, as the tower type or its overrides give them."""
    require_choice("tower_type", tower_type, TOWER_TYPES)
    standard = TOWER_TYPES[tower_type]
    filters = list(standard.filters if filters is None else filters)
    if not filters:
        raise ValueError("filters must name at least one block, got an empty list")
    if min(filters) < 1:
        raise ValueError(f"filters must all be at least 1, got {filters}")
    if pools is None and len(filters) != len(standard.pools):
        raise ValueError(
            f"filters has {len(filters)} blocks and tower_type {tower_type!r} has {len(standard.pools)}: "
            f"give pools too, one true or false per block, got none"
        )
    pools = list(standard.pools if pools is None else pools)
    if len(pools) != len(filters):
        raise ValueError(
            f"pools must have one entry per block: {len(filters)} filters {filters}, "
            f"{len(pools)} pools {pools}"
        )
    return filters, [bool(pool) for pool in pools]
