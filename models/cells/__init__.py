"""Recurrent cells, one file each; `build_cell` makes any of them."""

from typing import Any

from models.blocks import require_choice
from models.cells.base import Cell, CellSpec, State
from models.cells.conv import ConvCell
from models.cells.fgru import FGRUCell
from models.cells.gru import ConvGRUCell
from models.cells.hgru import HGRUCell
from models.cells.lstm import ConvLSTMCell
from models.cells.reciprocal import ReciprocalCell
from models.cells.rnn import ConvRNNCell

__all__ = [
    "CELLS",
    "Cell",
    "CellSpec",
    "ConvCell",
    "ConvGRUCell",
    "ConvLSTMCell",
    "ConvRNNCell",
    "FGRUCell",
    "HGRUCell",
    "ReciprocalCell",
    "State",
    "build_cell",
    "option_names",
]

CELLS: dict[str, type[Cell]] = {
    "conv": ConvCell,
    "rnn": ConvRNNCell,
    "gru": ConvGRUCell,
    "lstm": ConvLSTMCell,
    "reciprocal": ReciprocalCell,
    "hgru": HGRUCell,
    "fgru": FGRUCell,
}


def option_names() -> list[str]:
    """Every option of any cell: settings beyond CellSpec."""
    return sorted({option for cell in CELLS.values() for option in cell.options()})


def build_cell(
    cell_type: str,
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    activation: str = "relu",
    normalization: str | None = None,
    time_steps: int = 1,
    do_preconv: bool = True,
    preconv_kernel: int = 1,
    hidden_init: str | None = None,
    thesis_exact: bool = False,
    **options: Any,
) -> Cell:
    """Build one cell, called cell(x, state=None, t=0) -> (output, state).

    CellSpec says what each setting does. `options` go to the cells that have them, for instance
    attention="none" to fgru: the docstring of each cell lists its own. "fgru" with thesis_exact is what
    the original's towers made of it: an hgru.
    """
    require_choice("cell_type", cell_type, CELLS)
    cell = CELLS["hgru" if cell_type == "fgru" and thesis_exact else cell_type]
    for option in options:
        if option not in cell.options():
            if cell is not CELLS[cell_type]:
                raise ValueError(
                    f"with thesis_exact an fgru is what the original's towers made of it, an hgru, which has "
                    f"no option {option!r}; it has: {', '.join(cell.options())}"
                )
            having = [name for name, other in CELLS.items() if option in other.options()]
            raise ValueError(
                f"cell_type {cell_type!r} has no option {option!r}"
                + (f"; cells that have it: {', '.join(having)}" if having else "")
            )
    spec = CellSpec(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        stride=stride,
        activation=activation,
        normalization=normalization,
        time_steps=time_steps,
        do_preconv=do_preconv,
        preconv_kernel=preconv_kernel,
        hidden_init=hidden_init,
        thesis_exact=thesis_exact,
    )
    return cell(spec, **options)
