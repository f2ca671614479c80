"""Models side by side: what they were trained with, what they cost, what they do on stimuli."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from experiments.results import AccuracyResult, RSAResult, StimuliResult
from experiments.statistics import benjamini_hochberg

AnyResult = StimuliResult | RSAResult | AccuracyResult
Model = dict[str, Any]

FEWEST_FOR_CORRELATION = 5
"""Models below which no correlation over models is shown."""


USUAL = {"split": "trainval", "limit": None, "aspect": "stretch", "decision": "argmax", "seed": 0}
"""Settings that say which images were shown and how; named where they are others than these."""


def labels_of(results: Sequence[AnyResult]) -> dict[str, str]:
    """Short name of each weights file, by its hash: folder and file, longer where others end so too."""
    paths: dict[str, Path] = {}
    for result in results:
        paths.setdefault(result.provenance.weights_sha256, Path(result.provenance.weights).with_suffix(""))
    labels = {}
    for sha256, path in paths.items():
        others = [other for key, other in paths.items() if key != sha256]
        depths = range(2, len(path.parts))
        tails = ((path.parts[-depth:], [other.parts[-depth:] for other in others]) for depth in depths)
        unique = next((tail for tail, taken in tails if tail not in taken), None)
        # One file may have had several contents.
        labels[sha256] = "/".join(unique or path.parts[-2:]) + ("" if unique else f" {sha256[:8]}")
    return labels


def shown_in(result: StimuliResult | RSAResult) -> str:
    """Which images a result is about: "voc VOC2012, thesis"; only results about the same are compared."""
    settings = result.provenance.settings
    folder = Path(settings["path"]).name if settings["path"] else ""
    unusual = [f"{name} {settings[name]}" for name in USUAL if settings.get(name, USUAL[name]) != USUAL[name]]
    return ", ".join([f"{settings['dataset']} {folder}".strip(), settings["protocol"], *unusual])


def models_of(results: Sequence[AnyResult]) -> list[Model]:
    """One row per weights file: settings that differ, training accuracy, measures of all its results.

    Where a network was analysed over several time steps, the last one counts.
    """
    labels = labels_of(results)
    rows: dict[str, Model] = {}
    configs = {r.provenance.weights_sha256: r.provenance.config for r in results}
    differing = [
        key for key in _keys(configs.values()) if len({_plain(c.get(key)) for c in configs.values()}) > 1
    ]
    for result in results:
        known = result.provenance
        row = rows.setdefault(known.weights_sha256, {"model": labels[known.weights_sha256]})
        row.update({key: known.config.get(key) for key in differing})
        row["val_acc"] = known.metrics.get("val_acc")
        row.update(_measures(result))
    return list(rows.values())


def _measures(result: AnyResult) -> dict[str, Any]:
    last = max(row.time_step for row in result.rows)
    if isinstance(result, StimuliResult):
        where = shown_in(result)
        return {f"{r.stimulus} ({where})": r.accuracy for r in result.rows if r.time_step == last}
    if isinstance(result, RSAResult):
        method = result.method.split(",")[0]
        layer = [row.layer for row in result.rows if row.layer.startswith("hidden")][-1]
        return {
            f"RSA {method} {layer} {r.stimulus} ({shown_in(result)})": r.value
            for r in result.rows
            if (r.layer, r.time_step) == (layer, last) and r.stimulus != "label"
        }
    given = result.provenance.settings
    own = given["dataset"] is None and given["path"] is None
    return {
        "validation" if own else f"validation ({result.data['dataset']})": result.rows[-1].accuracy,
        "parameters": result.parameters,
        "MACs": result.rows[-1].macs,
        "images/s": result.images_per_second,
    }


def table(models: Sequence[Model]) -> list[list[str]]:
    """Rows of text, headings first, best validation accuracy first."""
    keys = list(_keys(models))
    ordered = sorted(models, key=lambda m: -(m.get("validation") or m.get("val_acc") or 0.0))
    return [keys, *([_text(model.get(key)) for key in keys] for model in ordered)]


def correlations(models: Sequence[Model]) -> list[list[str]]:
    """Spearman correlations over models of each numeric setting with each measure on stimuli."""
    if len(models) < FEWEST_FOR_CORRELATION:
        return []
    measures = [key for key in _keys(models) if "(" in key]
    settings = [key for key in _keys(models) if key != "model" and "(" not in key]
    found: list[tuple[str, str, int, float, float]] = []
    for setting in settings:
        for measure in measures:
            pairs = [
                (m[setting], m[measure])
                for m in models
                if _number(m.get(setting)) and _number(m.get(measure))
            ]
            values = np.array(pairs, dtype=np.float64)
            if len(pairs) < FEWEST_FOR_CORRELATION or (np.ptp(values, axis=0) == 0).any():
                continue
            test = stats.spearmanr(values[:, 0], values[:, 1])
            found.append((setting, measure, len(pairs), float(test.statistic), float(test.pvalue)))
    if not found:
        return []
    adjusted = benjamini_hochberg([row[-1] for row in found])
    rows = [
        [setting, measure, str(count), f"{rho:+.2f}", f"{p:.3g}"]
        for (setting, measure, count, rho, _), p in sorted(
            zip(found, adjusted, strict=True), key=lambda pair: pair[1]
        )
    ]
    return [["setting", "goes with", "models", "Spearman's rho", "adjusted p"], *rows]


def _keys(rows: Any) -> dict[str, None]:
    """All keys in order of first appearance."""
    return {key: None for row in rows for key in row}


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
