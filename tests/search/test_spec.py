import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.schedulers import build_scheduler
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


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda p: p.name)
def test_the_command_for_imagenet_in_a_space_gives_full_size_networks_and_full_courses(path: Path) -> None:
    command = path.read_text().partition("On ImageNet:")[2].partition("\n\n")[0]
    words = shlex.split(command.replace("\n#", " ").replace("\\ ", " "))
    assert words[:2] == ["python", "run_search.py"]
    spec = load_spec(ROOT / words[2], [word for word in words if "=" in word])
    for config in spec.corners():
        assert (config.dataset, config.filters, config.first_kernel) == ("ffcv", None, 7)
        steps = 1_281_167 * config.time_steps * config.max_epochs
        assert spec.search.scheduler.resource == "epoch" or steps >= spec.maximum


def test_a_configuration_and_a_space_are_not_taken_for_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    import run_search
    import run_train

    template, space = ROOT / "configs" / "template.yaml", ROOT / "search_spaces" / "hgru.yaml"
    assert run_search.main([str(template), "--trials", "3"]) == 2
    said = f"{template}: is no search space: it has none of train, space, search, resources; "
    assert capsys.readouterr().err == f"{said}a configuration is for run_train.py, or for --base\n"
    assert run_train.main([str(space)]) == 2
    said = f"{space}: is a search space, not a configuration: it is for run_search.py\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"search": {"scheduler": {"max_t": 9}}},
            "search.scheduler.max_t: unknown key; allowed: brackets, grace",
        ),
        (
            {"search": {"confirm": {"tops": 1}}},
            r"search.confirm.tops: unknown key; allowed: seeds, top; did you mean top\?$",
        ),
        ({"search": {"sampler": "tpe"}}, "search.sampler: Input should be a mapping of keys .*, got 'tpe'"),
        ({"space": {}}, "space: must have at least 1 entry, got {}"),
        (
            {"space": {"learning_rate": {"type": "float", "low": 0.1, "hi": 1}}},
            "space.learning_rate.hi: unknown key; allowed: high, log, low, quantize, step, type, when",
        ),
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


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (
            {"space": {"learning_rate": {"type": "int", "low": "x"}}},
            [
                "space.learning_rate.low: Input should be a valid integer, unable to parse string as an "
                "integer, got 'x'",
                "space.learning_rate.high: Field required",
            ],
        ),
        (
            {"space": {"filters": {"type": "categorical", "choices": [[4, 8]]}}},
            [
                "space.filters.choices.0: Input should be a valid string or a valid boolean or a valid "
                "integer or a valid number, got [4, 8]"
            ],
        ),
        (
            {"space": {"learning_rate": {"type": "flaot", "low": 0}}},
            [
                "space.learning_rate.type: must be one of 'float', 'int', 'categorical', 'constant', "
                "got 'flaot'"
            ],
        ),
        (
            {"space": {"learning_rate": {"low": 0, "high": 1}}},
            ["space.learning_rate: with high, low, type must be float, int, categorical or constant"],
        ),
        ({"search": {"metric": 5}}, ["search.metric: Input should be a valid string or a valid list, got 5"]),
        ({"search": {"mode": ["maxx"]}}, ["search.mode.0: Input should be 'min' or 'max', got 'maxx'"]),
        (
            {"train": {**spec()["train"], "batch_max": []}},
            ["train.batch_max: Input should be a valid integer or 'auto', got []"],
        ),
    ],
)
def test_a_wrong_value_has_one_line_that_names_no_other_keys_than_the_users(
    tmp_path: Path, change: dict[str, Any], problems: list[str]
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(spec(**change)))
    with pytest.raises(ConfigError) as error:
        load_spec(path, [])
    assert error.value.problems == [f"{path}: {problem}" for problem in problems]


INFINITE, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"high": INFINITE}, "space.learning_rate.high: Input should be a finite number, got inf"),
        ({"low": NAN}, "space.learning_rate.low: Input should be a finite number, got nan"),
        ({"step": INFINITE}, "space.learning_rate.step: Input should be a finite number"),
        ({"quantize": INFINITE}, "space.learning_rate.quantize: Input should be a finite number"),
        ({"step": 1e-300}, r"space.learning_rate: step \(1e-300\) is too small for numbers from 0.1 to 0.2"),
        ({"quantize": 1e-320}, "space.learning_rate: quantize .* is too small for numbers from 0.1 to 0.2"),
        ({"low": -1.7e308, "high": 1.7e308}, "too far apart"),
        ({"type": "int", "low": 1, "high": 10**400}, "space.learning_rate.high: .*less than or equal"),
    ],
)
def test_numbers_that_no_trial_can_draw_are_refused(
    tmp_path: Path, parameter: dict[str, Any], message: str
) -> None:
    path = tmp_path / "space.yaml"
    space = {"learning_rate": {"type": "float", "low": 0.1, "high": 0.2, **parameter}}
    path.write_text(yaml.safe_dump(spec(space=space)))
    with pytest.raises(ConfigError, match=message):
        load_spec(path, [])


@pytest.mark.parametrize(
    "more", [{}, {"step": 0.5}, {"quantize": 0.5}, {"log": True}, {"quantize": 1.5, "low": 17}]
)
def test_a_whole_setting_refuses_the_fractions_between_whole_bounds(more: dict[str, Any]) -> None:
    fixed = {key: value for key, value in spec()["train"].items() if key != "batch_size"}
    space = {"batch_size": {"type": "float", "low": 16, "high": 128, **more}, "learning_rate": 0.1}
    with pytest.raises(ValueError, match="space.batch_size: .*fractional part"):
        SearchSpec(**spec(space=space, train=fixed))


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ({"grace_period": INFINITE}, "search.scheduler.grace_period: Input should be a finite number"),
        ({"type": "hyperband", "max_resource": INFINITE}, "search.scheduler.max_resource: .*finite number"),
        ({"type": "hyperband", "reduction_factor": 1.0000001}, "search.scheduler.reduction_factor: .*1.1"),
        ({"brackets": 1000}, "search.scheduler.brackets: .*got 1000"),
        ({"brackets": 3}, "search.scheduler.brackets: must be at most 2, .*below 3, got 3"),
        (
            {"type": "pbt", "perturbation_factors": [NAN, 1]},
            "perturbation_factors.0: .*finite number, got nan",
        ),
        ({"type": "pbt", "perturbation_factors": [1, INFINITE]}, "perturbation_factors.1: .*finite number"),
        (
            {"type": "pbt", "perturbation_factors": [1e308, 1]},
            "search.scheduler: perturbation_factors must be",
        ),
    ],
)
def test_a_scheduler_that_could_not_count_is_refused(
    tmp_path: Path, scheduler: dict[str, Any], message: str
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(spec(search={"scheduler": scheduler})))
    with pytest.raises(ConfigError, match=message):
        load_spec(path, [])


@pytest.mark.parametrize(
    "scheduler",
    [
        {"resource": "images", "brackets": 50, "reduction_factor": 1e6},
        {
            "type": "hyperband",
            "resource": "images",
            "grace_period": 1e-6,
            "max_resource": 1e18,
            "reduction_factor": 1.1,
        },
    ],
)
def test_the_most_brackets_that_are_allowed_have_shares(scheduler: dict[str, Any]) -> None:
    build_scheduler(SearchSpec(**spec(search={"scheduler": scheduler}))).report(0, 1.0, 0.5)


def test_a_confirmation_has_seeds_left() -> None:
    train = {**spec()["train"], "seed": 2**31 - 4}
    SearchSpec(**spec(train=train, search={"confirm": {"seeds": 3}}))
    with pytest.raises(ValueError, match="train.seed: must be at most 2147483643.*got 2147483644"):
        SearchSpec(**spec(train=train, search={"confirm": {"seeds": 4}}))


@pytest.mark.parametrize(
    "parameter",
    [
        {"type": "int", "low": 1, "high": 10**9},
        {"type": "float", "low": 0.1, "high": 1, "step": 1e-10},
    ],
)
def test_a_grid_without_end_is_refused(parameter: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="more than 100,000 points"):
        SearchSpec(**spec(space={"learning_rate": parameter}, search={"sampler": {"type": "grid"}}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": None}, "space: .* got None"),
        ({"space": [1]}, r"space: .* got \[1\]"),
        ({"train": "abc"}, "train: .* got 'abc'"),
        ({"train": [1]}, r"train: .* got \[1\]"),
    ],
)
def test_a_part_that_is_no_mapping_is_named_with_a_base_too(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(spec(**change)))
    with pytest.raises(ConfigError, match=message):
        load_spec(path, [], ROOT / "configs" / "template.yaml")


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
            r"space\.time_steps: .*valid integer.*got [123]\.\d+",
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
