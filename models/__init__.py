"""Recurrent vision models: cells, the towers made of them, and the registry that builds both by name."""

from models.cells import CELLS, build_cell
from models.registry import MODELS, build_model, build_uninitialized
from models.tower import FeedForwardTower
from models.tower_types import TOWER_TYPES

__all__ = [
    "CELLS",
    "MODELS",
    "TOWER_TYPES",
    "FeedForwardTower",
    "build_cell",
    "build_model",
    "build_uninitialized",
]
