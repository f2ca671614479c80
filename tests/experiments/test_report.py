"""What a report compares, and what it calls it."""

import csv
from pathlib import Path
from typing import Any

import pytest

from experiments import figures
from experiments.report.build import find_results, write_report
from experiments.report.compare import labels_of, models_of
from experiments.results import (
    SCHEMA_VERSION,
    AccuracyResult,
    AccuracyRow,
    Provenance,
    RSAResult,
    RSARow,
    StimuliResult,
    StimulusRow,
    TrendRow,
    write_result,
)


def known(weights: str, sha256: str, **settings: Any) -> Provenance:
    return Provenance(
        schema_version=SCHEMA_VERSION,
        weights=weights,
        weights_sha256=sha256,
        config={"seed": 0},
        preprocessing={},
        class_names=["cat", "dog"],
        metrics={"val_acc": 0.5},
        settings={"dataset": "voc", "path": "/data/VOC2012", "seed": 0, **settings},
        versions={},
        created="",
        seconds=1,
    )


def stimuli_result(
    weights: str, sha256: str, images: int = 20, stimuli: tuple[str, ...] = ("normal",), **settings: Any
) -> StimuliResult:
    rows = [
        StimulusRow(
            stimulus=stimulus, time_step=1, images=images, hits=5, accuracy=5 / images, low=0, high=1,
            balanced_accuracy=0.2, chance=0.1, p=0.01, p_adjusted=0.02, null=[(1, 4), (2, 5)],
        )
        for stimulus in stimuli
    ]  # fmt: skip
    about = known(weights, sha256, **{"protocol": "thesis", "permutations": 9, **settings})
    return StimuliResult(provenance=about, data={"images": images}, rows=rows, trends=[])


def rsa_result(weights: str, sha256: str, method: str, value: float) -> RSAResult:
    row = RSARow(
        layer="hidden1", time_step=1, stimulus="silhouette", value=value, mean=value, low=0, high=1, p=0.1,
        p_adjusted=0.1, draws=9,
    )  # fmt: skip
    about = known(
        weights, sha256, protocol="thesis", method=method, bootstraps=9, bootstrap="classes", limit=None
    )
    name = {"fixed": "rho-a", "weighted": "Pearson, cross-validated over classes"}[method]
    return RSAResult(provenance=about, data={"images": 20}, method=name, rows=[row], trends=[])


def accuracy_result(
    weights: str, sha256: str, dataset: str, images: int, given: str | None = None
) -> AccuracyResult:
    row = AccuracyRow(time_step=1, images=images, hits=5, accuracy=5 / images, low=0, high=1, macs=1000)
    return AccuracyResult(
        provenance=known(weights, sha256, dataset=given, path=None),
        data={"dataset": dataset, "path": "", "images": images},
        rows=[row],
        trends=[],
        parameters=100,
        images_per_second=10.0,
        device="cpu",
    )


def test_networks_of_one_name_are_told_apart_by_their_folders_and_contents() -> None:
    results = [
        stimuli_result("/runs/gru/trial_1/model.weights", "a" * 64),
        stimuli_result("/runs/fgru/trial_1/model.weights", "b" * 64),
        stimuli_result("/runs/fgru/trial_2/model.weights", "c" * 64),
        stimuli_result("/runs/fgru/best.weights", "d" * 64),
        stimuli_result("/runs/fgru/best.weights", "e" * 64),
    ]
    assert list(labels_of(results).values()) == [
        "gru/trial_1/model", "fgru/trial_1/model", "trial_2/model", "fgru/best dddddddd", "fgru/best eeeeeeee"
    ]  # fmt: skip
    assert [model["model"] for model in models_of(results)] == list(labels_of(results).values())


@pytest.mark.parametrize(
    "other",
    [{"split": "val"}, {"limit": 12}, {"aspect": "pad"}, {"decision": "mean"}, {"path": "/data/VOC2007"}],
)
def test_results_on_other_images_are_not_compared(tmp_path: Path, other: dict[str, Any]) -> None:
    results = [
        stimuli_result("/a/1.weights", "a" * 64),
        stimuli_result("/a/2.weights", "b" * 64),
        stimuli_result("/a/3.weights", "c" * 64, images=12, **other),
    ]
    page = write_report(results, tmp_path).read_text()
    assert "n = 20 images" in page
    assert "n = 12 images" in page
    with (tmp_path / "models.csv").open() as file:
        models = list(csv.DictReader(file))
    assert [models[i]["normal (voc VOC2012, thesis)"] for i in range(3)] == ["0.25", "0.25", ""]
    assert len([column for column in models[0] if column.startswith("normal")]) == 2


def test_correlations_of_different_kinds_have_columns_of_their_own() -> None:
    results = [
        rsa_result("/a/1.weights", "a" * 64, kind, v) for kind, v in (("fixed", 0.1), ("weighted", 0.7))
    ]
    (model,) = models_of(results)
    assert model["RSA rho-a hidden1 silhouette (voc VOC2012, thesis)"] == 0.1
    assert model["RSA Pearson hidden1 silhouette (voc VOC2012, thesis)"] == 0.7


def test_similarities_that_rise_over_time_are_listed(tmp_path: Path) -> None:
    trends = [
        TrendRow(what="hidden2 serrated", tau=1.0, p=0.001, p_adjusted=0.004, method="exact"),
        TrendRow(what="cell2 label", tau=0.1, p=0.4, p_adjusted=0.4, method="exact"),
    ]
    result = rsa_result("/a/1.weights", "a" * 64, "fixed", 0.1).model_copy(update={"trends": trends})
    page = write_report([result], tmp_path).read_text()
    assert "Of 2 similarities over time steps, 1 rise" in page
    assert "<td>hidden2 serrated</td><td>1.00</td><td>0.004</td>" in page
    assert "cell2 label" not in page


def test_accuracies_on_different_data_sets_are_not_compared(tmp_path: Path) -> None:
    results = [
        accuracy_result("/a/1.weights", "a" * 64, "digits", 359),
        accuracy_result("/a/2.weights", "b" * 64, "cifar10", 10_000),
        accuracy_result("/a/3.weights", "c" * 64, "ffcv", 40, given="ffcv"),
    ]
    page = write_report(results, tmp_path).read_text()
    for stated in ("n = 359 validation", "n = 10000 validation", "n = 40 validation"):
        assert stated in page
    assert [model.get("validation") for model in models_of(results)] == [5 / 359, 5 / 10_000, None]
    assert models_of(results)[2]["validation (ffcv)"] == 5 / 40


def test_legend_names_stimuli_that_only_later_networks_saw() -> None:
    results = [
        stimuli_result("/a/1.weights", "a" * 64, stimuli=("frankenstein", "normal")),
        stimuli_result("/a/2.weights", "b" * 64, stimuli=("silhouette", "normal")),
    ]
    figure = figures.comparison_figure(results, ["1", "2"])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "normal",
        "silhouette",
        "frankenstein",
    ]
    figures.plt.close(figure)


def test_a_folder_may_be_called_anything(tmp_path: Path) -> None:
    result = stimuli_result("/a/x$^$ü/1.weights", "a" * 64)
    assert "x$^$ü/1" in write_report([result], tmp_path).read_text()


def test_copies_of_weights_are_one_network(tmp_path: Path) -> None:
    for name in ("best", "trial_1"):
        write_result(tmp_path / name / "stimuli.json", stimuli_result(f"/a/{name}.weights", "a" * 64))
    assert len(find_results([str(tmp_path)])) == 1


def test_layers_look_different_over_time() -> None:
    base = rsa_result("/a/1.weights", "a" * 64, "fixed", 0.3)
    layers = [f"{state}{depth}" for depth in range(1, 6) for state in ("hidden", "cell")]
    rows = [
        base.rows[0].model_copy(update={"layer": layer, "time_step": step})
        for layer in layers
        for step in range(1, 41)
    ]
    figure = figures.rsa_figure(base.model_copy(update={"rows": rows}), "")
    curves = figure.axes[1]
    looks = {(line.get_linestyle(), line.get_marker()) for line in curves.lines}
    assert len(looks) == len(layers)
    assert len(curves.get_xticks()) < 16  # of 40 steps
    figures.plt.close(figure)
