"""From the results in some folders to a page, figures and a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

from experiments import figures
from experiments.errors import InputError
from experiments.report.compare import AnyResult, correlations, labels_of, models_of, shown_in, table
from experiments.report.page import Section, render
from experiments.results import (
    AccuracyResult,
    RSAResult,
    StimuliResult,
    read_result,
    write_bytes,
    write_csv,
)

Shown = TypeVar("Shown", StimuliResult, RSAResult)

KINDS = {"stimuli", "rsa", "accuracy"}


def find_results(folders: Sequence[str]) -> list[AnyResult]:
    """All results below the folders, by path; other JSON files are passed over."""
    paths: set[Path] = set()
    for folder in folders:
        root = Path(folder).expanduser().absolute()
        if not root.is_dir():
            raise InputError(f"no folder at {root}; give what --out of an analysis named")
        paths.update(root.rglob("*.json"))
    # Copies of the same weights may have been analysed under different names.
    distinct: dict[Any, AnyResult] = {}
    for path in sorted(paths):
        if _is_result(path):
            result = read_result(path)
            known = result.provenance
            what = (result.kind, known.weights_sha256, json.dumps(known.settings, sort_keys=True))
            distinct.setdefault(what, result)
    results = list(distinct.values())
    if not results:
        raise InputError(
            f"no results below {', '.join(map(str, folders))}; run python -m experiments.stimuli first"
        )
    return results


def _is_result(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("kind") in KINDS and "provenance" in content


def write_report(results: Sequence[AnyResult], out: Path) -> Path:
    """Write report.html, models.csv and every figure as PNG and PDF into `out`; returns the page."""
    models, labels = models_of(results), Labels(results)
    write_csv(out / "models.csv", _rectangular(models))
    gallery = Gallery(out)
    sections = [
        *_models_sections(models),
        *_stimuli_sections([r for r in results if isinstance(r, StimuliResult)], labels, gallery),
        *_rsa_sections([r for r in results if isinstance(r, RSAResult)], labels, gallery),
        *_accuracy_sections([r for r in results if isinstance(r, AccuracyResult)], labels, gallery),
        _provenance_section(results, labels),
    ]
    page = out / "report.html"
    write_bytes(page, render("Analysis of recurrent vision models", sections).encode())
    return page


class Labels:
    """Names of the networks."""

    def __init__(self, results: Sequence[AnyResult]) -> None:
        """Args: results: all of the report, so that no two networks are called the same."""
        self._labels = labels_of(results)

    def __call__(self, result: AnyResult) -> str:
        """Name of the network that a result is of."""
        return self._labels[result.provenance.weights_sha256]


class Gallery:
    """Keeps figures as files, under names of their own."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: where the files go."""
        self._folder = folder
        self._names: set[str] = set()

    def add(self, name: str, figure: Figure) -> bytes:
        """Write NAME.png and NAME.pdf and return the PNG."""
        name = name.replace("/", "-").replace(", ", "-").replace(" ", "-")
        if name in self._names:
            name = f"{name}-{len(self._names)}"
        self._names.add(name)
        png = figures.rendered(figure, "png")
        figures.save(figure, self._folder / f"{name}.png")
        return png


def _models_sections(models: list[dict[str, object]]) -> list[Section]:
    text = f"{len(models)} models, best validation accuracy first; settings that all share are left out."
    sections = [Section("Models", text, (), table(models))]
    related = correlations(models)
    if related:
        text = (
            "Spearman's correlation over models, two-sided, adjusted by Benjamini-Hochberg over this table. "
            "A search chooses its settings: read this as a hint, not as an experiment."
        )
        sections.append(Section("What goes with what", text, (), related))
    return sections


def _stimuli_sections(results: Sequence[StimuliResult], label_of: Labels, gallery: Gallery) -> list[Section]:
    sections = []
    for shown, group in _grouped(results).items():
        labels = [label_of(result) for result in group]
        name = f"stimuli-{shown}"
        images = [gallery.add(name, figures.comparison_figure(group, labels))] if len(group) > 1 else []
        for result, label in zip(group, labels, strict=True):
            images.append(gallery.add(f"{name}-{label}", figures.stimuli_figure(result, label)))
        shuffles = sorted({result.provenance.settings["permutations"] for result in group})
        text = (
            f"{_sample(group[0])} Intervals: 95% Wilson. Null distributions and p: labels shuffled "
            f"{' or '.join(f'{n:,}' for n in shuffles)} times, p = (b + 1) / (n + 1), adjusted by "
            "Benjamini-Hochberg over the stimuli of one network and time step. Trends: Kendall's tau, exact, "
            "one-sided, adjusted over stimuli."
        )
        sections.append(Section(f"Stimuli: {shown}", text, images))
    return sections


def _rsa_sections(results: Sequence[RSAResult], label_of: Labels, gallery: Gallery) -> list[Section]:
    sections = []
    for shown, group in _grouped(results).items():
        images = []
        for result in group:
            name = f"rsa-{shown}-{result.provenance.settings['method']}-{label_of(result)}"
            title = f"{label_of(result)}, {result.method}"
            images.append(gallery.add(name, figures.rsa_figure(result, title)))
        rising = [
            [label_of(result), result.method, trend.what, f"{trend.tau:.2f}", f"{trend.p_adjusted:.3g}"]
            for result in group
            for trend in result.trends
            if trend.p_adjusted <= figures.SIGNIFICANT
        ]
        tested = sum(len(result.trends) for result in group)
        text = (
            f"{_sample(group[0])} RDMs: squared Euclidean distances per unit; `label` is the RDM of the "
            "classes. Intervals: 95% percentiles of the bootstrap. p: share of bootstraps at or below zero, "
            "(b + 1) / (n + 1), adjusted by Benjamini-Hochberg over layers and stimuli of a time step. Of "
            f"{tested} similarities over time steps, {len(rising)} rise: Kendall's tau, exact, one-sided, p "
            f"at most {figures.SIGNIFICANT} after Benjamini-Hochberg over layers and stimuli of a network."
        )
        rows = [["model", "comparison", "rises", "tau", "adjusted p"], *rising] if rising else []
        sections.append(Section(f"Representational similarity: {shown}", text, images, rows))
    return sections


def _accuracy_sections(
    results: Sequence[AccuracyResult], label_of: Labels, gallery: Gallery
) -> list[Section]:
    groups: dict[tuple[str, int], list[AccuracyResult]] = {}
    for result in results:
        groups.setdefault((result.data["dataset"], result.data["images"]), []).append(result)
    sections = []
    for (dataset, count), group in groups.items():
        labels = [label_of(result) for result in group]
        images = [gallery.add(f"complexity-{dataset}", figures.complexity_figure(group, labels))]
        for result, label in zip(group, labels, strict=True):
            if len(result.rows) > 1:
                name = f"accuracy-{dataset}-{label}"
                images.append(gallery.add(name, figures.accuracy_figure(result, label)))
        text = (
            f"n = {count} validation images; intervals: 95% Wilson. Parameters and multiply-accumulates are "
            "counted, images per second measured where the analysis ran."
        )
        sections.append(Section(f"Cost and accuracy: {dataset}", text, images))
    return sections


def _grouped(results: Sequence[Shown]) -> dict[str, list[Shown]]:
    """Results by the images that were shown: only those are compared."""
    groups: dict[str, list[Shown]] = {}
    for result in results:
        groups.setdefault(shown_in(result), []).append(result)
    return groups


def _provenance_section(results: Sequence[AnyResult], label_of: Labels) -> Section:
    rows = [["model", "analysis", "SHA-256 of the weights", "seed", "torch", "made", "seconds"]]
    for result in results:
        known = result.provenance
        rows.append(
            [
                label_of(result),
                result.kind,
                known.weights_sha256[:16],
                str(known.settings.get("seed", "")),
                known.versions.get("torch", ""),
                known.created,
                f"{known.seconds:.1f}",
            ]
        )
    return Section("Where it comes from", "Everything else is in the JSON files.", (), rows)


def _sample(result: StimuliResult | RSAResult) -> str:
    images = result.data.get("limited_to", result.data["images"])
    dropped = result.data.get("dropped") or {}
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
    listed = f" of {result.data['listed']} listed (dropped: {reasons})" if dropped else ""
    return f"n = {images} images{listed}, seed {result.provenance.settings['seed']}."


def _rectangular(models: list[dict[str, object]]) -> list[dict[str, object]]:
    keys = dict.fromkeys(key for model in models for key in model)
    return [{key: model.get(key) for key in keys} for model in models]
