"""Figures of the space: where good trials lie, which parameters matter, where training diverges."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from search.report.facts import SearchFacts, TrialFacts
from search.report.style import COLOURS, INK, MAP, new_figure
from search.space import ConstantParameter

FEW_TRIALS = 30
"""Complete trials below which importances say little."""


class _Axis:
    """One parameter on a scale from 0 to 1: logarithmic where drawn so, even for categories."""

    def __init__(self, facts: SearchFacts, name: str) -> None:
        self.name, self.parameter = name, facts.spec.space[name]
        self.log = getattr(self.parameter, "log", False)
        self.choices: list[Any] | None = getattr(self.parameter, "choices", None)

    def at(self, value: Any) -> float:
        """Where a value lies."""
        if self.choices is not None:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        low, high = self.parameter.extremes()
        if low == high:
            return 0.5
        scale = math.log if self.log else float
        return (scale(value) - scale(low)) / (scale(high) - scale(low))

    def labels(self) -> list[tuple[float, str]]:
        """A few places and what to write there."""
        if self.choices is not None:
            return [(self.at(choice), str(choice)) for choice in self.choices]
        low, high = self.parameter.extremes()
        return [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")] if low != high else [(0.5, f"{low:.3g}")]

    def scatter_scale(self, ax: Axes) -> None:
        """Give a plain plot this parameter as its x axis."""
        ax.set_xlabel(self.name)
        if self.choices is not None:
            ax.set_xticks(range(len(self.choices)), [str(choice) for choice in self.choices])
            ax.set_xlim(-0.6, len(self.choices) - 0.4)
        elif self.log:
            ax.set_xscale("log")

    def x(self, value: Any, number: int) -> Any:
        """Where a value lies on that axis; categories are spread a little."""
        if self.choices is None:
            return value
        return self.choices.index(value) + 0.4 * ((number * 0.618) % 1 - 0.5)


def _axes(facts: SearchFacts) -> list[_Axis]:
    names = [n for n, parameter in facts.spec.space.items() if not isinstance(parameter, ConstantParameter)]
    return [_Axis(facts, name) for name in names]


def _judged(facts: SearchFacts) -> list[TrialFacts]:
    return [trial for trial in facts.trials if math.isfinite(trial.last(facts.metric))]


def parallel(facts: SearchFacts) -> Figure | None:
    """One line per trial over all parameters; a line stops where a parameter does not count."""
    axes, trials = _axes(facts), _judged(facts)
    if len(axes) < 2 or not trials:
        return None
    figure, (ax,) = new_figure(width=max(7.2, 1.25 * len(axes)), height=3.9)
    values = [trial.last(facts.metric) for trial in trials]
    order = sorted(range(len(trials)), key=lambda i: facts.spec.search.sign * values[i])
    lines, colours, widths = [], [], []
    for i in order:
        trial = trials[i]
        places = [axis.at(trial.drawn[axis.name]) if axis.name in trial.drawn else math.nan for axis in axes]
        shift = 0.03 * ((trial.number * 0.618) % 1 - 0.5)
        lines.append([(j, place + shift) for j, place in enumerate(places)])
        colours.append(values[i])
        widths.append(1.4 if trial.fate == "complete" else 0.6)
    collection = LineCollection(lines, array=np.array(colours), cmap=MAP, linewidths=widths, alpha=0.85)
    ax.add_collection(collection)
    ax.grid(visible=False)
    for j, axis in enumerate(axes):
        ax.axvline(j, color="#9aa0a8", linewidth=0.8, zorder=0)
        for place, text in axis.labels():
            ax.text(j + 0.03, place, text, fontsize=7, color=INK, va="center", zorder=5, bbox=_PLATE)
    ax.set(xlim=(-0.15, len(axes) - 0.6), ylim=(-0.06, 1.06), yticks=[])
    ax.set_xticks(range(len(axes)), [axis.name for axis in axes], fontsize=8)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    bar = figure.colorbar(collection, ax=ax, fraction=0.03, pad=0.01)
    bar.set_label(f"{facts.metric} (thick: ran to the end)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


_PLATE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.8}


def importances(facts: SearchFacts) -> dict[str, float]:
    """Share of the complete trials' variance that each parameter explains (Hutter et al. 2014, fANOVA).

    Empty where Optuna cannot tell: fewer than two complete trials, or all of them equal.
    """
    complete = [t for t in facts.study.trials() if t.state == optuna.trial.TrialState.COMPLETE]
    if len(complete) < 2 or len({t.values[0] for t in complete}) < 2:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(
                facts.study.study,
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
                target=lambda trial: trial.values[0],
            )
    except (ValueError, RuntimeError):  # e.g. no parameter that all complete trials share
        return {}
    return {name: float(share) for name, share in found.items() if math.isfinite(share)}


def importance_warning(facts: SearchFacts) -> str:
    """Why not to trust the importances; empty with enough trials."""
    count = len(facts.of("complete"))
    if count >= FEW_TRIALS:
        return ""
    return f"Only {count} complete trials: below {FEW_TRIALS} these shares change a lot with each new one."


def importance(facts: SearchFacts) -> Figure | None:
    """Bars of `importances`."""
    shares = importances(facts)
    if not shares:
        return None
    few = bool(importance_warning(facts))
    figure, (ax,) = new_figure(height=0.9 + 0.34 * len(shares))
    names = sorted(shares, key=lambda name: shares[name])
    ax.barh(
        names, [shares[name] for name in names], color=COLOURS["pruned" if few else "complete"], height=0.6
    )
    for place, name in enumerate(names):
        ax.annotate(f" {100 * shares[name]:.0f} %", (shares[name], place), va="center", fontsize=8, color=INK)
    ax.set_xlabel("share of the variance of complete trials" + (" (too few of them)" if few else ""))
    ax.margins(x=0.12)
    return figure


def slices(facts: SearchFacts) -> Figure | None:
    """The first objective over each parameter."""
    axes, trials = _axes(facts), _judged(facts)
    if not axes or not trials:
        return None
    columns = min(4, len(axes))
    rows = -(-len(axes) // columns)
    figure, plots = new_figure(width=max(4.0, 2.4 * columns), height=2.5 * rows, columns=columns, rows=rows)
    for ax, axis in zip(plots, axes, strict=False):
        for fate in ("pruned", "diverged", "failed", "running", "complete"):
            shown = [t for t in trials if t.fate == fate and axis.name in t.drawn]
            ax.scatter(
                [axis.x(t.drawn[axis.name], t.number) for t in shown],
                [t.last(facts.metric) for t in shown],
                s=13,
                color=COLOURS[fate],
            )
        axis.scatter_scale(ax)
        if axis.choices is not None and max(len(str(choice)) for choice in axis.choices) > 6:
            ax.tick_params(axis="x", labelrotation=30)
    for ax in plots[len(axes) :]:
        ax.set_visible(False)
    for ax in plots[::columns]:
        ax.set_ylabel(facts.metric)
    return figure


def instability(facts: SearchFacts) -> Figure | None:
    """Which trials diverged, over learning rate and time steps (or what the space has of the two)."""
    by_name = {axis.name: axis for axis in _axes(facts)}
    if "learning_rate" not in by_name:
        return None
    shown = [t for t in facts.trials if "learning_rate" in t.drawn and (t.rows or t.fate == "diverged")]
    if not shown:
        return None
    figure, (ax,) = new_figure(height=3.2)
    steps = "time_steps" in by_name

    def height(trial: TrialFacts) -> float:
        value = trial.drawn.get("time_steps", facts.spec.config(trial.drawn).time_steps)
        return float(value) + 0.3 * ((trial.number * 0.618) % 1 - 0.5)

    finite = [t for t in shown if t.fate != "diverged"]
    gone = [t for t in shown if t.fate == "diverged"]
    ax.scatter(
        [t.drawn["learning_rate"] for t in finite],
        [height(t) for t in finite],
        s=20,
        color=COLOURS["complete"],
    )
    ax.scatter(
        [t.drawn["learning_rate"] for t in gone],
        [height(t) for t in gone],
        s=34,
        color=COLOURS["diverged"],
        marker="x",
        linewidth=1.6,
    )
    by_name["learning_rate"].scatter_scale(ax)
    ax.set_ylabel("time_steps")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if not steps:
        ax.margins(y=1.0)
    handles = [
        Line2D(
            [],
            [],
            color=COLOURS["complete"],
            marker="o",
            linestyle="none",
            markersize=5,
            label="finite",
        ),
        Line2D(
            [], [], color=COLOURS["diverged"], marker="x", linestyle="none", label=f"diverged ({len(gone)})"
        ),
    ]
    ax.legend(handles=handles, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
