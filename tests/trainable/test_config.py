from pathlib import Path
from typing import Any, get_args

import pytest

from data import DATASETS
from models.cells import CELLS
from models.gammanet import GAMMANET_TYPES
from models.registry import MODELS
from models.tower_types import TOWER_TYPES
from trainable.config import TrainConfig
from trainable.config.network import TOWER_TYPES_OF
from trainable.config_file import apply_overrides, parse_yaml, read_mapping, validate
from trainable.errors import ConfigError
from trainable.optim import OPTIMIZERS
from trainable.schedules import SCHEDULES


@pytest.mark.parametrize(
    ("field", "registry"),
    [
        ("dataset", DATASETS),
        ("cell_type", CELLS),
        ("model_base", MODELS),
        ("optimizer", OPTIMIZERS),
        ("lr_scheduler", SCHEDULES),
    ],
)
def test_allowed_values_are_the_registry_s_keys(field: str, registry: dict[str, Any]) -> None:
    assert set(get_args(TrainConfig.model_fields[field].annotation)) == set(registry)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timesteps": 3}, "timesteps: unknown key"),
        ({"learning_rate": "fast"}, "learning_rate: .*got 'fast'"),
        ({"learning_rate": float("inf")}, "learning_rate: .*finite number, got inf"),
        ({"learning_rate": -1}, "learning_rate: .*greater than 0, got -1"),
        ({"cell_type": "gruu"}, "cell_type: .*'fgru'.*got 'gruu'"),
        ({"batch_max": 8, "batch_frag": 2}, "give one of them"),
        ({"lr_scheduler": "step"}, "lr_step go together"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"image_dtype": "float16"}, "image_dtype float16 needs precision bf16 or fp16"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(
    small: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        validate(TrainConfig, {**small, **change}, "run.json")
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith("run.json: ")


def test_normalization_left_out_is_the_cell_s_own_and_null_is_none(small: dict[str, Any]) -> None:
    del small["normalization"]
    assert TrainConfig(**small).normalization == "batchnorm"
    assert TrainConfig(**{**small, "cell_type": "fgru"}).normalization == "instancenorm"
    assert TrainConfig(**{**small, "cell_type": "fgru", "normalization": None}).normalization == "none"
    gammanet = {key: value for key, value in small.items() if key not in ("filters", "pools")}
    gammanet = {**gammanet, "model_base": "gammanet", "tower_type": "small"}
    assert TrainConfig(**gammanet).normalization == "instancenorm"


def test_tower_types_are_those_of_each_architecture(small: dict[str, Any]) -> None:
    assert set(TOWER_TYPES_OF["ff_tower"]) == set(TOWER_TYPES)
    assert set(TOWER_TYPES_OF["gammanet"]) == set(GAMMANET_TYPES)
    with pytest.raises(ValueError, match="tower_type of ff_tower must be one of .*deeper, got 'small'"):
        TrainConfig(**{**small, "tower_type": "small"})


def test_a_dumped_config_reads_back_equal(small: dict[str, Any]) -> None:
    config = TrainConfig(**small)
    assert TrainConfig(**config.model_dump(mode="json", exclude_none=True)) == config


def test_variables_are_expanded_and_unset_ones_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("dataset_path: ${DATA}/train.beton\nseed: 3\n")
    monkeypatch.setenv("DATA", "/data")
    assert read_mapping(path) == {"dataset_path": "/data/train.beton", "seed": 3}
    monkeypatch.delenv("DATA")
    with pytest.raises(ConfigError, match="dataset_path: environment variable DATA is not set"):
        read_mapping(path)


def test_yaml_reads_exponents_as_numbers_and_refuses_a_key_given_twice(tmp_path: Path) -> None:
    assert parse_yaml("[1e-3, -2E5, 1.5e2, e3]") == [0.001, -200000.0, 150.0, "e3"]
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1\nseed: 2\n")
    with pytest.raises(ConfigError, match="'seed' is given twice"):
        read_mapping(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("? [a]\n: b", r"a key must be text, got \['a'\].*line 1, column 3"),
        ("{[a]: b}", r"a key must be text, got \['a'\].*line 1, column 2"),
        ("1: 2", "1: a key must be text, got 1; put it in quotes"),
        ("train: {on: 2}", "train.True: a key must be text, got True; put it in quotes"),
        ("train: {seed: 2020-01-01}", "train.seed: must be text, a number, .*got datetime.date"),
        ("train: {seed: 2020-13-45}", "'2020-13-45' is no timestamp.*line 1, column 15"),
        ("seed: !!int abc", "'abc' is no int"),
        ("seed: !!bool maybe", "'maybe' is no bool"),
        ("seed: !!binary aGk=", "seed: must be text, a number, .*got b'hi'"),
        ("train: {seed: !!set {a}}", "train.seed: must be text, a number, .*got {'a'}"),
        ("a: &a [*a]", "a.0: contains itself"),
        ("train: &a {x: *a}", "train.x: contains itself"),
        ("a: " + "[" * 3000, "is nested too deep"),
    ],
)
def test_yaml_that_is_no_plain_data_is_refused_with_file_and_place(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_mapping(path)
    assert all(problem.startswith(f"{path}: ") for problem in error.value.problems)


def test_an_alias_is_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: &a {x: [1]}\nb: *a\n")
    assert apply_overrides(read_mapping(path), ["b.x=2"]) == {"a": {"x": [1]}, "b": {"x": 2}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train={[1]: 2}", r"--set train={\[1\]: 2}: a key must be text"),
        ("train={1: 2}", "--set train.1: a key must be text"),
        ("train.seed=2020-01-01", "--set train.seed: must be text, a number"),
    ],
)
def test_an_override_that_is_no_plain_data_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides({}, [override])


def test_overrides_descend_and_leave_the_original_alone() -> None:
    values = {"train": {"epochs": 3}}
    assert apply_overrides(values, ["train.epochs=4", "search.seed=1"]) == {
        "train": {"epochs": 4},
        "search": {"seed": 1},
    }
    assert values == {"train": {"epochs": 3}}
    with pytest.raises(ConfigError, match="must be KEY=VALUE"):
        apply_overrides(values, ["epochs"])


def test_every_key_of_the_original_s_readme_is_accepted(small: dict[str, Any]) -> None:
    TrainConfig(
        **small,
        dataset_path=None,
        dataset_val_path=None,
        model_base="ff_tower",
        tower_type="normal",
        optimizer="sgd",
        lr_scheduler="step",
        lr_step=10,
        momentum=0.9,
        weight_decay=1e-4,
        do_gradient_clipping=True,
        do_preconv=True,
        batch_max=64,
        wb_suppress=True,
        wb_group="thesis",
        wb_run_name="first",
        do_reload=True,
    )
