"""Figure of population based training: how settings changed over the epochs, and which led to the winner."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from search.lineage import Stretch, lineage, stretches
from search.report.facts import SearchFacts
from search.report.style import BEST, COLOURS, new_figure


def schedules(facts: SearchFacts) -> Figure | None:
    """A panel per parameter that changed: grey each trial's setting, black what the winner's weights saw."""
    names = facts.spec.adjustable if facts.spec.search.scheduler.type == "pbt" else []
    trials = [found for trial in facts.trials if (found := stretches(facts.study, trial.number))]
    if not names or not trials:
        return None
    figure, axes = new_figure(height=1.0 + 1.5 * len(names), rows=len(names))
    winner = lineage(facts.study, facts.best.number) if facts.best else []
    for ax, name in zip(axes, names, strict=True):
        for found in trials:
            ax.plot(*_steps(found, name), color=COLOURS["pruned"], linewidth=0.9)
        if winner:
            ax.plot(*_steps(winner, name), color=BEST, linewidth=2)
        for before, after in pairwise(winner):
            if before.number != after.number:
                ax.axvline(before.last, color=COLOURS["failed"], linewidth=0.9, linestyle=":")
        if getattr(facts.spec.space[name], "log", False):
            ax.set_yscale("log")
        ax.set_ylabel(name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel("epoch")
    axes[0].legend(
        handles=[
            Line2D([], [], color=COLOURS["pruned"], linewidth=0.9, label="every trial"),
            Line2D([], [], color=BEST, linewidth=2, label="on the way to the winner"),
            Line2D([], [], color=COLOURS["failed"], linestyle=":", label="weights were taken over"),
        ],
        fontsize=8,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    return figure


def _steps(found: list[Stretch], name: str) -> tuple[list[int], list[Any]]:
    """Corners of a line that is level within a stretch."""
    shown = [stretch for stretch in found if name in stretch.params]
    xs = [x for stretch in shown for x in (stretch.first - 1, stretch.last)]
    return xs, [stretch.params[name] for stretch in shown for _ in range(2)]
