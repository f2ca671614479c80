"""How all figures look: one palette, one font size, thin axes; a figure is bytes of PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

COLOURS = {
    "complete": "#2563a8",
    "pruned": "#b4b9c2",
    "diverged": "#cc3d3d",
    "failed": "#e08a1e",
    "running": "#3a9a5b",
}
"""Colour of each fate."""

INK, BEST, MAP = "#2b2f36", "#111111", "viridis"


def new_figure(
    width: float = 7.2, height: float = 3.8, columns: int = 1, rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, without pyplot and its global state. Sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for ax in axes:
        soften(ax)
    return figure, axes


def soften(ax: Axes) -> None:
    """Thin grey axes, no frame."""
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#9aa0a8")
    ax.tick_params(colors=INK, labelsize=8, length=3)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_fontsize(9)
        label.set_color(INK)
    ax.grid(visible=True, color="#eceef1", linewidth=0.8)
    ax.set_axisbelow(True)


def fate_legend(ax: Axes, fates: Iterable[str], **more: Line2D) -> None:
    """A legend of the fates that occur, beside the axes."""
    handles = [
        Line2D([], [], color=COLOURS[fate], marker="o", linestyle="none", markersize=5, label=fate)
        for fate in fates
    ]
    ax.legend(
        handles=[*handles, *more.values()],
        fontsize=8,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()
