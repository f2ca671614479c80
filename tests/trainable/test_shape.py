"""Shape metrics in a run's reports."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from data import open_data
from experiments import sources
from experiments.objective import METRICS, measure
from models import build_model
from tests.trainable.sessions import assert_same, run
from trainable.config import TrainConfig
from trainable.config.shape import ShapeMetric
from trainable.errors import ConfigError
from trainable.metrics import OBJECTIVES, SHAPE_METRICS
from trainable.preflight import check


def test_names_are_those_that_the_analysis_measures() -> None:
    assert get_args(ShapeMetric) == SHAPE_METRICS == METRICS
    assert set(SHAPE_METRICS) <= set(OBJECTIVES)


def test_the_last_report_holds_what_the_analysis_measures_of_the_written_weights(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    metrics = ["shape_bias", "silhouette_acc"]
    weights, session = run(tmp_path / "shape", {**small, "epochs": 2, "shape_metrics": metrics})
    assert "shape_bias" not in session.reports[0]
    model = build_model(small, 10)
    model.load_state_dict(weights, strict=True)
    data = open_data("digits", batch_size=32)
    expected = measure(model, data.preprocessing, data.info.class_names, small["time_steps"], metrics=metrics)
    last = session.reports[-1]
    assert {name: last[name] for name in metrics} == expected
    assert 0 < last["silhouette_acc"] < 1
    plain, _ = run(tmp_path / "plain", {**small, "epochs": 2})
    assert_same(weights, plain)  # measuring changes nothing of the training


def test_shape_is_measured_as_often_as_asked(tmp_path: Path, small: dict[str, Any]) -> None:
    torch.manual_seed(0)
    settings = {**small, "epochs": 3, "shape_metrics": ["silhouette_acc"], "shape_metrics_every": 2}
    _, session = run(tmp_path, settings)
    assert ["silhouette_acc" in row for row in session.reports] == [False, True, True]


def test_a_missing_folder_of_stimuli_is_named_before_training(tmp_path: Path, small: dict[str, Any]) -> None:
    config = TrainConfig(
        **small, shape_metrics=["shape_bias"], shape_dataset="voc", shape_path=str(tmp_path / "VOC2012")
    )
    with pytest.raises(ConfigError, match=r"run.json: shape_metrics: .*VOC2012"):
        check(config, "run.json")


def test_stimuli_of_one_class_are_refused_for_shape_bias_before_training(
    monkeypatch: pytest.MonkeyPatch, small: dict[str, Any]
) -> None:
    digits = sources.open_source("digits", None)
    threes = replace(digits, class_ids=np.full(5, 3))
    monkeypatch.setattr(sources, "open_source", lambda *_, **__: threes)
    with pytest.raises(ConfigError, match="shape_metrics: shape bias needs images of at least two classes"):
        check(TrainConfig(**small, shape_metrics=["shape_bias"]), "run.json")
    check(TrainConfig(**small, shape_metrics=["silhouette_acc"]), "run.json")
