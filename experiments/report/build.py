"""From the results in some folders to a page, figures and a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure

from experiments import figures
from experiments.errors import InputError
from experiments.report.compare import AnyResult, correlations, label_of, models_of, table
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
    results = [read_result(path) for path in sorted(paths) if _is_result(path)]
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
    models = models_of(results)
    write_csv(out / "models.csv", _rectangular(models))
    gallery = Gallery(out)
    sections = [
        *_models_sections(models),
        *_stimuli_sections([result for result in results if isinstance(result, StimuliResult)], gallery),
        *_rsa_sections([result for result in results if isinstance(result, RSAResult)], gallery),
        *_accuracy_sections([result for result in results if isinstance(result, AccuracyResult)], gallery),
        _provenance_section(results),
    ]
    page = out / "report.html"
    write_bytes(page, render("Analysis of recurrent vision models", sections).encode())
    return page


class Gallery:
    """Keeps figures as files, under names of their own."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: where the files go."""
        self._folder = folder
        self._names: set[str] = set()

    def add(self, name: str, figure: Figure) -> bytes:
        """Write NAME.png and NAME.pdf and return the PNG."""
        name = name.replace("/", "-").replace(" ", "-")
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


def _stimuli_sections(results: Sequence[StimuliResult], gallery: Gallery) -> list[Section]:
    sections = []
    for (dataset, protocol), group in _grouped(results).items():
        labels = [label_of(result) for result in group]
        name = f"stimuli-{dataset}-{protocol}"
        images = [gallery.add(name, figures.comparison_figure(group, labels))] if len(group) > 1 else []
        for result, label in zip(group, labels, strict=True):
            images.append(gallery.add(f"{name}-{label}", figures.stimuli_figure(result, label)))
        text = (
            f"{_sample(group[0])} Intervals: 95% Wilson. Null distributions and p: labels shuffled "
            f"{group[0].provenance.settings['permutations']:,} times, p = (b + 1) / (n + 1), adjusted by "
            "Benjamini-Hochberg over the stimuli of one network and time step. Trends: Kendall's tau, exact, "
            "one-sided, adjusted over stimuli."
        )
        sections.append(Section(f"Stimuli: {dataset}, protocol {protocol}", text, images))
    return sections


def _rsa_sections(results: Sequence[RSAResult], gallery: Gallery) -> list[Section]:
    sections = []
    for (dataset, protocol), group in _grouped(results).items():
        images = []
        for result in group:
            name = f"rsa-{dataset}-{protocol}-{result.provenance.settings['method']}-{label_of(result)}"
            title = f"{label_of(result)}, {result.method}"
            images.append(gallery.add(name, figures.rsa_figure(result, title)))
        text = (
            f"{_sample(group[0])} RDMs: squared Euclidean distances per unit; `label` is the RDM of the "
            "classes. Intervals: 95% percentiles of the bootstrap. p: share of bootstraps at or below zero, "
            "(b + 1) / (n + 1), adjusted by Benjamini-Hochberg over layers and stimuli of a time step."
        )
        sections.append(Section(f"Representational similarity: {dataset}, {protocol}", text, images))
    return sections


def _accuracy_sections(results: Sequence[AccuracyResult], gallery: Gallery) -> list[Section]:
    if not results:
        return []
    labels = [label_of(result) for result in results]
    images = [gallery.add("complexity", figures.complexity_figure(results, labels))]
    for result, label in zip(results, labels, strict=True):
        if len(result.rows) > 1:
            images.append(gallery.add(f"accuracy-{label}", figures.accuracy_figure(result, label)))
    text = (
        f"n = {results[0].rows[-1].images} validation images; intervals: 95% Wilson. Parameters and "
        "multiply-accumulates are counted, images per second measured where the analysis ran."
    )
    return [Section("Cost and accuracy", text, images)]


def _grouped(results: Sequence[Shown]) -> dict[tuple[str, str], list[Shown]]:
    """Results by data set and protocol: only those are compared."""
    groups: dict[tuple[str, str], list[Shown]] = {}
    for result in results:
        settings = result.provenance.settings
        groups.setdefault((settings["dataset"], settings["protocol"]), []).append(result)
    return groups


def _provenance_section(results: Sequence[AnyResult]) -> Section:
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
