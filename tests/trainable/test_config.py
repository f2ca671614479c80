import inspect
from pathlib import Path
from typing import Any, get_args

import pytest

from data import DATASETS
from models import build_uninitialized
from models.cells import CELLS, option_names
from models.cells.fgru import CIRCUIT_OPTIONS
from models.gammanet import GAMMANET_TYPES
from models.registry import MODELS
from models.tower_types import TOWER_TYPES
from trainable.config import TrainConfig
from trainable.config.network import NETWORKS_WITH, TOWER_BLOCKS, TOWER_TYPES_OF, NetworkSettings
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
        ({"timesteps": 3}, "timesteps: unknown key; allowed: activation, .*; did you mean time_steps[?]"),
        ({"learning_rate": "fast"}, "learning_rate: .*got 'fast'"),
        ({"learning_rate": float("inf")}, "learning_rate: .*finite number, got inf"),
        ({"learning_rate": -1}, "learning_rate: .*greater than 0, got -1"),
        ({"cell_type": "gruu"}, "cell_type: .*'fgru'.*got 'gruu'"),
        ({"batch_max": 8, "batch_frag": 2}, "give one of them"),
        ({"clip_value": 0.7}, r"clip_value \(got 0.7\) needs do_gradient_clipping: true"),
        ({"lr_scheduler": "step"}, "lr_step go together"),
        ({"learning_rate": True}, "learning_rate: must be a number, got True"),
        ({"epochs": True}, "epochs: must be a number, got True"),
        ({"filters": [4, True]}, r"filters: must be a number, got \[4, True\]"),
        ({"compile": True}, "compile: .*'off', 'step' or 'model', got True"),
        ({"seed": 2**63}, "seed: .*less than 9223372036854775808"),
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
    thesis = {**small, "cell_type": "fgru", "thesis_exact": True}
    assert TrainConfig(**thesis).normalization == "batchnorm"  # an hgru
    assert NetworkSettings(model_base="gammanet", tower_type="small").normalization == "instancenorm"


def test_tower_types_are_those_of_each_architecture(small: dict[str, Any]) -> None:
    assert set(TOWER_TYPES_OF["ff_tower"]) == set(TOWER_TYPES)
    assert set(TOWER_TYPES_OF["gammanet"]) == set(GAMMANET_TYPES)
    with pytest.raises(ValueError, match="tower_type of ff_tower must be one of .*deeper, got 'small'"):
        TrainConfig(**{**small, "tower_type": "small"})


def test_the_configuration_knows_which_network_has_which_setting() -> None:
    executed = {"model_base", "channels_last", "compile"}
    for_any = {"cell_type", "time_steps"}  # as in the original's configs
    assert set(NETWORKS_WITH) == set(NetworkSettings.model_fields) - executed - for_any
    having = {name: set(inspect.signature(builder).parameters) for name, builder in MODELS.items()}
    for name, settings in having.items():
        if "cell_options" in settings:
            settings |= set(CIRCUIT_OPTIONS if name == "gammanet" else option_names())
    for key, networks in NETWORKS_WITH.items():
        assert set(networks) == {name for name in MODELS if key in having[name]}, key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout_recurrent": 0.9}, r"gammanet has no dropout_recurrent \(got 0.9\); leave it out"),
        ({"dropout": 0.9, "activation": "tanh"}, r"no activation \(got 'tanh'\), dropout .*; leave them out"),
        ({"hidden_init": "zero"}, "no hidden_init"),
        ({"cell_kernel": 7}, "no cell_kernel"),
        ({"thesis_exact": True}, "no thesis_exact"),
        ({"peepholes": "none"}, r"gammanet has no peepholes \(got 'none'\)"),
        ({"hidden_init": "random", "hidden_seed": 3}, "no hidden_init .*, hidden_seed"),
        ({"pools": [True] * 5}, "no pools"),
        ({"first_kernel": 5}, "first_kernel of a normal gammanet is 3, got 5; leave it out"),
        ({"model_base": "resnet18", "filters": [4, 8]}, r"resnet18 has no filters \(got \[4, 8\]\)"),
        ({"model_base": "resnet18", "normalization": None}, r"resnet18 has no normalization \(got 'none'\)"),
        ({"model_base": "resnet18", "recompute": True}, "resnet18 has no recompute"),
        ({"model_base": "resnet18", "attention": "se"}, "resnet18 has no attention"),
        ({"model_base": "ff_tower", "gamma_head": "pooled"}, "ff_tower has no gamma_head"),
    ],
)
def test_settings_that_a_network_does_not_have_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**{"model_base": "gammanet", **settings})


def test_settings_that_say_what_a_network_is_are_accepted() -> None:
    options = {"attention": "se", "attention_layers": 1, "gate_bias": "after_norm"}
    flags = dict.fromkeys(set(CIRCUIT_OPTIONS) - set(options), False)
    NetworkSettings(model_base="gammanet", cell_type="gru", time_steps=4, dropout=0.0, **options, **flags)
    NetworkSettings(model_base="gammanet", first_kernel=3, first_stride=1)
    NetworkSettings(model_base="gammanet", tower_type="small", first_kernel=5, filters=[4] * 5)
    config = NetworkSettings(model_base="resnet18", cell_type="fgru", time_steps=4, channels_last=True)
    assert config.normalization == "batchnorm"


def test_pools_go_with_the_widths_of_a_tower_type() -> None:
    assert {name: len(kind.filters) for name, kind in TOWER_TYPES.items()} == TOWER_BLOCKS
    config = NetworkSettings(pools=[True, False, True, True, True])
    assert build_uninitialized(config, 3).pools == config.pools
    with pytest.raises(ValueError, match=r"pools of a deeper tower are 10, one per block; got \[True, "):
        NetworkSettings(tower_type="deeper", pools=[True] * 5)
    with pytest.raises(ValueError, match=r"pools must be as long as filters, got \[True\] for \[4, 8\]"):
        NetworkSettings(filters=[4, 8], pools=[True])
    with pytest.raises(ValueError, match="pools of a dev_tower go with filters"):
        NetworkSettings(model_base="dev_tower", pools=[True] * 5)


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


def test_json_with_a_key_given_twice_is_refused_and_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b'\xef\xbb\xbf{"train": {"seed": 1}}')
    assert read_mapping(path) == {"train": {"seed": 1}}
    path.write_text('{"train": {"seed": 1, "epochs": 3, "seed": 2}}')
    with pytest.raises(ConfigError, match=r"run.json: 'seed' is given twice"):
        read_mapping(path)


def test_off_needs_no_quotes(small: dict[str, Any]) -> None:
    values = apply_overrides({**small, "compile": "step"}, ["compile=off", "do_reload=off"])
    config = validate(TrainConfig, values, "run.yaml")
    assert (config.compile, config.do_reload) == ("off", False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("? [a]\n: b", r"a key must be text, got \['a'\].*line 1, column 3"),
        ("{[a]: b}", r"a key must be text, got \['a'\].*line 1, column 2"),
        ("1: 2", "1: a key must be text, got 1; put it in quotes"),
        ("train: {on: 2}", "train.True: a key must be text, got True; put it in quotes"),
        ("train: {seed: 2020-01-01}", "train.seed: must be text, a number, .*got datetime.date"),
        ("train: {seed: 2020-13-45}", "'2020-13-45' is no timestamp.*line 1, column 15"),
        ("a: &a {x: 1}\nb: {<<: *a}", "<< merges mappings, which is not supported.*line 2, column 5"),
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


def test_home_of_a_user_who_does_not_exist_is_a_folder_that_is_missing(small: dict[str, Any]) -> None:
    config = TrainConfig.model_validate(
        small | {"dataset": "imagenet_small", "dataset_path": "~nobody.here/x"}
    )
    assert config.with_absolute_paths().dataset_path == str(Path("~nobody.here/x").absolute())
