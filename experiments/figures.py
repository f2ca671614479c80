"""Figures of results: bars with null distributions, curves over time, similarity per layer, cost."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from experiments.results import write_bytes

if TYPE_CHECKING:
    from experiments.results import AccuracyResult, RSAResult, RSARow, StimuliResult

# Okabe & Ito 2008: told apart with colour-blind eyes too.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000"]
COLOUR_OF = {
    "normal": COLOURS[0],
    "foreground": COLOURS[1],
    "silhouette": COLOURS[2],
    "frankenstein": COLOURS[3],
    "serrated": COLOURS[4],
    "label": "#777777",
}
BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False}
"""A legend to the right of the axes, where it hides no point."""

plt.rcParams["text.parse_math"] = False  # titles are names of folders, which may hold a $

SIGNIFICANT = 0.05
MOST_TICKS = 16
"""Time steps that have room for a number each."""


def save(figure: Figure, target: Path) -> None:
    """Write TARGET.png and TARGET.pdf (for any ending of `target`) and close the figure."""
    for ending in ("png", "pdf"):
        write_bytes(target.with_suffix(f".{ending}"), rendered(figure, ending))
    plt.close(figure)


def rendered(figure: Figure, ending: str) -> bytes:
    """The figure as the bytes of a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=ending, dpi=150)
    return buffer.getvalue()


def stimuli_figure(result: StimuliResult, title: str) -> Figure:
    """Accuracy after the last step with its null distribution, and over steps where there are several."""
    steps = sorted({row.time_step for row in result.rows})
    figure, axes = _panels(1 + (len(steps) > 1), title)
    accuracy_bars(axes[0], result)
    if len(steps) > 1:
        accuracy_curves(axes[1], result)
    return figure


def accuracy_bars(axes: Axes, result: StimuliResult) -> None:
    """Bars of the last step, 95% intervals; beside each bar the null distribution of the permutation test."""
    last = max(row.time_step for row in result.rows)
    rows = [row for row in result.rows if row.time_step == last]
    for x, row in enumerate(rows):
        errors = [[row.accuracy - row.low], [row.high - row.accuracy]]
        axes.bar(x, row.accuracy, 0.5, color=COLOUR_OF[row.stimulus], yerr=errors, capsize=3)
        hits, counts = np.array(row.null).T
        accuracy = hits / row.images
        spread = 0.22 * counts / counts.max()
        axes.fill_betweenx(accuracy, x + 0.3, x + 0.3 + spread, color="#999999", lw=0, step="mid")
        star = "*" if row.p_adjusted <= SIGNIFICANT else "n.s."
        axes.text(x, row.high + 0.015, star, ha="center", fontsize=9)
    axes.set_xticks(range(len(rows)), [row.stimulus for row in rows], rotation=20)
    axes.set_ylim(0, min(1.1, max(row.high for row in rows) + 0.12))
    axes.set_ylabel(f"accuracy after step {last}")
    axes.set_title(
        f"n = {rows[0].images} images; bars: 95% Wilson; grey: shuffled labels\n"
        f"* p ≤ {SIGNIFICANT}, Benjamini-Hochberg over {len(rows)} stimuli",
        fontsize=8,
    )


def accuracy_curves(axes: Axes, result: StimuliResult) -> None:
    """Accuracy over time steps with 95% intervals; chance dashed."""
    trends = {row.what: row for row in result.trends}
    for stimulus in dict.fromkeys(row.stimulus for row in result.rows):
        rows = sorted((r for r in result.rows if r.stimulus == stimulus), key=lambda r: r.time_step)
        steps = [row.time_step for row in rows]
        colour = COLOUR_OF[stimulus]
        rising = stimulus in trends and trends[stimulus].p_adjusted <= SIGNIFICANT
        axes.plot(
            steps,
            [r.accuracy for r in rows],
            "o-",
            ms=4,
            color=colour,
            label=stimulus + (" ↑" if rising else ""),
        )
        axes.fill_between(
            steps, [r.low for r in rows], [r.high for r in rows], color=colour, alpha=0.15, lw=0
        )
        axes.plot(steps, [r.chance for r in rows], "--", color=colour, lw=0.8)
    _time_axis(axes, [row.time_step for row in result.rows])
    axes.set_ylabel("accuracy")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    axes.set_title(
        "bands: 95% Wilson; dashed: chance\n↑ rises: exact Kendall, one-sided, adjusted", fontsize=8
    )


def rsa_figure(result: RSAResult, title: str) -> Figure:
    """Similarity per layer after the last step, and over steps where there are several."""
    steps = sorted({row.time_step for row in result.rows if row.time_step > 0})
    figure, axes = _panels(1 + (len(steps) > 1), title)
    rsa_layers(axes[0], result)
    if len(steps) > 1:
        rsa_curves(axes[1], result)
    return figure


def _layer_rows(result: RSAResult, layer: str, stimulus: str) -> list[RSARow]:
    rows = [row for row in result.rows if row.layer == layer and row.stimulus == stimulus]
    return sorted(rows, key=lambda row: row.time_step)


def rsa_layers(axes: Axes, result: RSAResult) -> None:
    """Bootstrapped similarity to the normal images by layer, after the last step."""
    layers = list(dict.fromkeys(row.layer for row in result.rows))
    stimuli = list(dict.fromkeys(row.stimulus for row in result.rows))
    width = 0.8 / len(stimuli)
    for s, stimulus in enumerate(stimuli):
        last = [_layer_rows(result, layer, stimulus)[-1] for layer in layers]
        x = np.arange(len(layers)) + (s - (len(stimuli) - 1) / 2) * width
        height = [_or_nan(row.mean) for row in last]
        errors = np.array(
            [[_or_nan(r.mean) - _or_nan(r.low), _or_nan(r.high) - _or_nan(r.mean)] for r in last]
        ).T
        axes.bar(x, height, width, color=COLOUR_OF[stimulus], label=stimulus)
        axes.errorbar(x, height, yerr=np.maximum(errors, 0), fmt="none", ecolor="black", elinewidth=0.8)
        for at, row in zip(x, last, strict=True):
            if row.p_adjusted <= SIGNIFICANT and row.high is not None:
                axes.text(at, max(row.high, 0) + 0.01, "*", ha="center", fontsize=8)
    axes.axhline(0, color="black", lw=0.6)
    axes.set_xticks(range(len(layers)), layers, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_ylabel(f"similarity to normal ({result.method.split(',')[0]})")
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        fontsize=7,
        ncols=len(stimuli),
        loc="outside lower left",
        frameon=False,
    )
    settings = result.provenance.settings
    axes.set_title(
        f"n = {result.data.get('limited_to', result.data['images'])} images; "
        f"95% of {settings['bootstraps']} bootstraps over {settings['bootstrap']}\n"
        f"* above 0, p ≤ {SIGNIFICANT}, Benjamini-Hochberg over layers and stimuli of a time step",
        fontsize=8,
    )


def rsa_curves(axes: Axes, result: RSAResult) -> None:
    """Similarity over time steps: a colour per stimulus, a line style per layer."""
    stimuli = list(dict.fromkeys(row.stimulus for row in result.rows))
    layers = [
        layer
        for layer in dict.fromkeys(row.layer for row in result.rows)
        if len(_layer_rows(result, layer, stimuli[0])) > 1
    ]
    depths = list(dict.fromkeys(layer.removeprefix("hidden").removeprefix("cell") for layer in layers))
    for layer in layers:
        depth = depths.index(layer.removeprefix("hidden").removeprefix("cell"))
        look: dict[str, Any] = {
            "linestyle": "--" if layer.startswith("cell") else "-",
            "marker": "os^DvP*X"[depth % 8],
            "ms": 4,
        }
        axes.plot([], [], color="black", label=layer, **look)
        for stimulus in stimuli:
            rows = _layer_rows(result, layer, stimulus)
            axes.plot(
                [r.time_step for r in rows],
                [r.value for r in rows],
                color=COLOUR_OF[stimulus],
                **look,
            )
    _time_axis(axes, [row.time_step for row in result.rows if row.time_step > 0])
    axes.set_ylabel("similarity to normal, all images")
    if layers:
        axes.legend(fontsize=7, handlelength=4, **BESIDE)
    axes.set_title("colours as on the left; marker: layer; dashed: cell states", fontsize=8)


def accuracy_figure(result: AccuracyResult, title: str) -> Figure:
    """Validation accuracy over time steps."""
    figure, axes = _panels(1, title)
    steps = [row.time_step for row in result.rows]
    axes[0].errorbar(
        steps,
        [row.accuracy for row in result.rows],
        yerr=[[r.accuracy - r.low for r in result.rows], [r.high - r.accuracy for r in result.rows]],
        fmt="o-",
        capsize=3,
        color=COLOURS[0],
    )
    _time_axis(axes[0], steps)
    axes[0].set_ylabel("validation accuracy")
    axes[0].set_title(f"n = {result.rows[0].images} images; 95% Wilson", fontsize=8)
    return figure


def complexity_figure(results: Sequence[AccuracyResult], labels: Sequence[str]) -> Figure:
    """Accuracy after the last step against parameters, multiply-accumulates and speed, for each network."""
    figure, axes = _panels(3, "cost and accuracy")
    costs: list[tuple[str, list[float]]] = [
        ("parameters", [result.parameters for result in results]),
        ("multiply-accumulates per image", [result.rows[-1].macs for result in results]),
        (
            f"images/s ({', '.join(sorted({r.device for r in results}))})",
            [result.images_per_second for result in results],
        ),
    ]
    for panel, (name, values) in zip(axes, costs, strict=True):
        for i, (value, result) in enumerate(zip(values, results, strict=True)):
            row = result.rows[-1]
            panel.errorbar(
                value,
                row.accuracy,
                yerr=[[row.accuracy - row.low], [row.high - row.accuracy]],
                fmt="os^Dv"[i // len(COLOURS) % 5],
                color=COLOURS[i % len(COLOURS)],
                capsize=2,
                label=labels[i],
            )
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlabel(name)
    axes[0].set_ylabel("validation accuracy")
    if len(results) <= 12:
        axes[-1].legend(fontsize=6, **BESIDE)
    axes[1].set_title(f"n = {results[0].rows[-1].images} images; 95% Wilson", fontsize=8)
    return figure


def comparison_figure(results: Sequence[StimuliResult], labels: Sequence[str]) -> Figure:
    """Accuracy of several networks on each stimulus after their last step, 95% intervals."""
    figure, axes = _panels(1, "networks on stimuli", width=min(14.0, 4 + 1.2 * len(results)))
    named: set[str] = set()
    shown = {row.stimulus for result in results for row in result.rows}
    stimuli = [stimulus for stimulus in COLOUR_OF if stimulus in shown]
    for s, stimulus in enumerate(stimuli):
        for i, result in enumerate(results):
            rows = [row for row in result.rows if row.stimulus == stimulus]
            if not rows:
                continue
            row = max(rows, key=lambda row: row.time_step)
            axes[0].errorbar(
                i + (s - (len(stimuli) - 1) / 2) * 0.12,
                row.accuracy,
                yerr=[[row.accuracy - row.low], [row.high - row.accuracy]],
                fmt="o" if row.p_adjusted <= SIGNIFICANT else "x",
                color=COLOUR_OF[stimulus],
                capsize=2,
                label=None if stimulus in named else stimulus,
            )
            named.add(stimulus)
    axes[0].set_xticks(range(len(results)), labels, rotation=25, ha="right", fontsize=7)
    axes[0].set_ylabel("accuracy after the last step")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(fontsize=7, **BESIDE)
    axes[0].set_title(
        f"n = {results[0].rows[0].images} images; 95% Wilson\n"
        "x: not above chance (Benjamini-Hochberg over stimuli, per network)",
        fontsize=8,
    )
    return figure


def _panels(count: int, title: str, width: float | None = None) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(
        1, count, figsize=(width or 5.2 * count, 4.2), layout="constrained", squeeze=False
    )
    figure.suptitle(title, fontsize=10)
    for panel in axes[0]:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[0])


def _time_axis(axes: Axes, steps: Sequence[int]) -> None:
    if len(set(steps)) > MOST_TICKS:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.set_xticks(sorted(set(steps)))
    axes.set_xlabel("time step")


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
