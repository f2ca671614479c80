from pathlib import Path
from typing import Any

import pytest
import yaml

from search.spec import SearchSpec, load_spec
from tests.commands import ROOT, SMALL
from trainable.errors import ConfigError
from trainable.preflight import check


def spec(**changes: Any) -> dict[str, Any]:
    fixed = {key: value for key, value in SMALL.items() if key != "learning_rate"}
    return {
        "train": fixed,
        "space": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}},
        **changes,
    }


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_space_is_valid_to_its_corners(path: Path) -> None:
    for config in load_spec(path, []).corners():
        check(config, str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spaces": {}}, "spaces: unknown key; allowed: resources, search, space, train"),
        ({"space": {"learning_rat": {"type": "float", "low": 0, "high": 1}}}, "space.learning_rat: unknown"),
        ({"space": {"epochs": {"type": "int", "low": 1, "high": 2}}}, "space.epochs: is also in train"),
        ({"space": {"learning_rate": {"type": "float", "low": 2, "high": 1}}}, "must not exceed high"),
        ({"space": {"learning_rate": {"type": "float", "low": 0, "high": 1, "log": True}}}, "above 0"),
        ({"space": {"learning_rate": {"type": "float", "low": -1, "high": 1}}}, "space.learning_rate: .*-1"),
        (
            {"space": {"learning_rate": {"type": "categorical", "choices": [0.1, "big"]}}},
            "space.learning_rate: .*'big'",
        ),
        ({"search": {"metric": "val_accuracy"}}, "unknown metric 'val_accuracy'; a trial reports: val_acc"),
        ({"search": {"metric": "shape_bias"}}, "shape_bias is not reported; give train.shape_metrics"),
        (
            {
                "train": {**spec()["train"], "shape_metrics": ["shape_bias"]},
                "search": {"metric": "shape_bias"},
            },
            "asha reads shape_bias in every epoch; give train.shape_metrics_every: 1",
        ),
        (
            {"search": {"metric": ["val_acc", "val_acc_2t"], "scheduler": {"max_resource": 2}}},
            "max_resource: a trial that ends there has no val_acc_2t",
        ),
        ({"search": {"num_samples": 0}}, "search.num_samples: .*got 0"),
        ({"search": {"scheduler": {"grace_period": 9}}}, "grace_period .9. must not exceed the epoch"),
        ({"resources": {"workers": 0}}, "resources.workers: .*got 0"),
        ({"train": {**SMALL, "cell_type": "gruu"}, "space": spec()["space"]}, "is also in train"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(spec(**change)))
    with pytest.raises(ConfigError, match=message) as error:
        load_spec(path, [])
    assert all(problem.startswith(f"{path}: ") for problem in error.value.problems)


def test_a_wrong_fixed_setting_is_reported_once_however_many_corners(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(spec()))
    with pytest.raises(ConfigError) as error:
        load_spec(path, ["train.cell_type=gruu", "train.tower=x"])
    assert [problem.split(": ")[1] for problem in error.value.problems] == ["train.cell_type", "train.tower"]


def test_the_resolved_spec_reads_back_equal() -> None:
    one = SearchSpec(**spec())
    assert SearchSpec(**yaml.safe_load(one.to_yaml())) == one


def test_data_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(spec()))
    monkeypatch.chdir(tmp_path)
    loaded = load_spec(path, ["train.dataset=ffcv", "train.dataset_path=a.beton"])
    assert loaded.train["dataset_path"] == str(tmp_path / "a.beton")


@pytest.mark.parametrize(
    ("train", "space", "message"),
    [
        (
            {"time_steps": None},
            {"time_steps": {"type": "float", "low": 1, "high": 4}},
            r"space: time_steps=[123]\.\d+: time_steps: .*valid integer",
        ),
        (
            {"epochs": None},
            {
                "epochs": {"type": "categorical", "choices": [8, 2]},
                "warmup_epochs": {"type": "categorical", "choices": [0, 4]},
            },
            r"space: epochs=2, warmup_epochs=4: warmup_epochs must be below epochs",
        ),
    ],
)
def test_a_space_that_is_valid_at_its_corners_alone_is_refused(
    tmp_path: Path, train: dict[str, Any], space: dict[str, Any], message: str
) -> None:
    path = tmp_path / "space.yaml"
    fixed = {key: value for key, value in spec()["train"].items() if key not in train}
    path.write_text(yaml.safe_dump({"train": fixed, "space": {**spec()["space"], **space}}))
    with pytest.raises(ConfigError, match=message) as error:
        load_spec(path, [])
    assert len(error.value.problems) == 1


def test_settings_that_conditions_keep_apart_are_no_mistake() -> None:
    fixed = {key: value for key, value in spec()["train"].items() if key != "epochs"}
    SearchSpec(
        train=fixed,
        space={
            "epochs": {"type": "categorical", "choices": [8, 2]},
            "warmup_epochs": {"type": "categorical", "choices": [0, 4], "when": {"epochs": [8]}},
            "learning_rate": 0.1,
        },
    )
