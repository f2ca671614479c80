"""Figures of how a search went: best so far, learning curves, rungs, cost, time steps, Pareto front."""

from __future__ import annotations

import math

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from search.report.facts import FATES, SearchFacts
from search.report.style import BEST, COLOURS, INK, fate_legend, new_figure


def history(facts: SearchFacts) -> Figure | None:
    """Each trial's last value by number, and the best complete one so far."""
    shown = [trial for trial in facts.trials if math.isfinite(trial.last(facts.metric))]
    if not shown:
        return None
    figure, (ax,) = new_figure()
    for fate in FATES:
        points = [(t.number, t.last(facts.metric)) for t in shown if t.fate == fate]
        if points:
            ax.scatter([n for n, _ in points], [v for _, v in points], s=22, color=COLOURS[fate], zorder=3)
    best, numbers, values = -math.inf, [], []
    for trial in facts.of("complete"):
        best = max(best, facts.spec.search.sign * trial.last(facts.metric))
        numbers.append(trial.number)
        values.append(facts.spec.search.sign * best)
    if numbers:
        ax.step(
            [*numbers, facts.trials[-1].number],
            [*values, values[-1]],
            where="post",
            color=BEST,
            linewidth=1.3,
        )
    ax.set(xlabel="trial", ylabel=facts.metric)
    line = Line2D([], [], color=BEST, linewidth=1.3, label="best complete")
    fate_legend(ax, [f for f in FATES if any(t.fate == f for t in shown)], best=line)
    return figure


def curves(facts: SearchFacts) -> Figure | None:
    """The first objective over epochs, coloured by how the trial ended."""
    figure, (ax,) = new_figure()
    seen = set()
    for fate in ("pruned", "failed", "diverged", "running", "complete"):
        for trial in facts.of(fate):
            curve = trial.curve(facts.metric)
            if not curve:
                continue
            seen.add(fate)
            epochs, values = zip(*curve, strict=True)
            best = facts.best is not None and trial.number == facts.best.number
            ax.plot(
                epochs, values, color=BEST if best else COLOURS[fate], linewidth=2 if best else 1, alpha=0.85
            )
            if fate != "complete":
                ax.scatter(
                    epochs[-1:],
                    values[-1:],
                    s=14,
                    marker="x" if fate == "diverged" else "o",
                    color=COLOURS[fate],
                )
    if not seen:
        return None
    ax.set(xlabel="epoch", ylabel=facts.metric)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    fate_legend(
        ax, [f for f in FATES if f in seen], best=Line2D([], [], color=BEST, linewidth=2, label="the best")
    )
    return figure


def rungs(facts: SearchFacts) -> Figure | None:
    """At each rung of the scheduler, the values of the trials that came there: who went on, who did not."""
    found = getattr(facts.scheduler, "rungs", None)
    if not found:
        return None
    figure, (ax,) = new_figure()
    highest = max(rung for _, rung in found)
    reached: dict[int, int] = {}
    for _, rung in found:
        for number in found[(_, rung)]:
            reached[number] = max(reached.get(number, 0), rung)
    fates = {trial.number: trial.fate for trial in facts.trials}
    seen = set()
    for (_, rung), entries in found.items():
        for place, (number, value) in enumerate(sorted(entries.items())):
            fate = fates[number] if reached[number] == rung else "complete"
            seen.add(fate)
            jitter = 0.24 * ((place * 0.618) % 1 - 0.5)
            ax.scatter(
                rung + jitter, facts.spec.search.sign * value, s=20, color=COLOURS[fate], alpha=0.9, zorder=3
            )
    grace, eta = facts.spec.search.scheduler.grace_period, facts.spec.search.scheduler.reduction_factor
    counts = [sum(len(e) for (_, r), e in found.items() if r == rung) for rung in range(highest + 1)]
    labels = [f"{grace * eta**rung:.3g}\n{counts[rung]} trials" for rung in range(highest + 1)]
    ax.set_xticks(range(highest + 1), labels)
    ax.set(xlabel=f"rung, in {facts.spec.search.scheduler.resource}", ylabel=f"{facts.metric} there")
    names = {"complete": "went on", "pruned": "stopped here", "diverged": "diverged later"}
    handles = [
        Line2D([], [], color=COLOURS[f], marker="o", linestyle="none", markersize=5, label=names.get(f, f))
        for f in FATES
        if f in seen
    ]
    ax.legend(handles=handles, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def cost(facts: SearchFacts) -> Figure | None:
    """Hours spent, by fate, and hours that early ends saved."""
    spent = {fate: sum(t.seconds for t in facts.of(fate)) for fate in FATES}
    if not sum(spent.values()):
        return None
    saved = sum(map(facts.saved, facts.trials))
    unit, name = (3600.0, "hours") if sum(spent.values()) + saved > 7200 else (60.0, "minutes")
    figure, (ax,) = new_figure(height=1.9)
    left = 0.0
    for fate, seconds in spent.items():
        if seconds:
            ax.barh("spent", seconds / unit, left=left, color=COLOURS[fate], height=0.6)
            left += seconds / unit
    ax.barh("saved", saved / unit, color="white", edgecolor=COLOURS["pruned"], hatch="////", height=0.6)
    ax.annotate(f" {left:.3g}", (left, 0), va="center", fontsize=8, color=INK)
    ax.annotate(f" {saved / unit:.3g}", (saved / unit, 1), va="center", fontsize=8, color=INK)
    ax.invert_yaxis()
    ax.set_xlabel(f"{name} of training, over all trials")
    ax.margins(x=0.1)
    fate_legend(ax, [fate for fate, seconds in spent.items() if seconds])
    return figure


def time_steps(facts: SearchFacts) -> Figure | None:
    """Accuracy after each time step, for the best trials that ran to their end."""
    sign = facts.spec.search.sign
    shown = [t for t in facts.of("complete") if t.rows and len(t.rows[-1].get("val_acc_t") or []) > 1]
    shown.sort(key=lambda t: -sign * t.last(facts.metric))
    if not shown:
        return None
    figure, (ax,) = new_figure()
    for place, trial in enumerate(shown[:5]):
        values = trial.rows[-1]["val_acc_t"]
        ax.plot(
            range(1, len(values) + 1),
            values,
            marker="o",
            markersize=4,
            color=BEST if place == 0 else f"C{place - 1}",
            linewidth=2 if place == 0 else 1.2,
            label=trial.name,
        )
        twice = trial.rows[-1].get("val_acc_2t")
        if twice is not None:
            ax.plot(
                [len(values), 2 * len(values)],
                [values[-1], twice],
                linestyle=":",
                color=ax.lines[-1].get_color(),
            )
    ax.set(xlabel="time step (dotted: at twice the trained steps)", ylabel="val_acc")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def pareto(facts: SearchFacts) -> Figure | None:
    """The first two objectives of complete trials, and those that no other beats in all objectives."""
    metrics = facts.spec.search.metrics
    complete = facts.of("complete")
    if len(metrics) < 2 or not complete:
        return None
    figure, (ax,) = new_figure()
    x, y = metrics[1], metrics[0]
    ax.scatter([t.last(x) for t in complete], [t.last(y) for t in complete], s=22, color=COLOURS["pruned"])
    front = sorted(facts.front, key=lambda trial: trial.last(x))
    ax.plot(
        [t.last(x) for t in front],
        [t.last(y) for t in front],
        color=COLOURS["complete"],
        marker="o",
        markersize=5,
    )
    for trial in front:
        ax.annotate(
            f"{trial.number}",
            (trial.last(x), trial.last(y)),
            textcoords="offset points",
            xytext=(4, 5),
            fontsize=7,
        )
    ax.set(xlabel=x, ylabel=y)
    return figure
