import json
from pathlib import Path
from typing import Any

import pytest

from trainable.config import TrainConfig
from trainable.config.keeping import BOOKKEEPING
from trainable.errors import ConfigError
from trainable.out_files import out_files
from trainable.run_folder import changed_settings, check_writable, claimed, folder_name
from trainable.run_place import RunPlace


def test_the_folder_follows_what_is_trained_and_not_how_it_is_logged(small: dict[str, Any]) -> None:
    name = folder_name(TrainConfig(**small), "run")
    assert folder_name(TrainConfig(**small, wb_group="thesis", checkpoint_interval=1), "run") == name
    assert folder_name(TrainConfig(**{**small, "learning_rate": 0.02}), "run") != name
    assert folder_name(TrainConfig(**small, init="/a.weights"), "run") != name
    assert {"checkpoint_interval", "wb_group", "keep_checkpoints"} < BOOKKEEPING


def test_a_changed_setting_is_named_with_both_values(tmp_path: Path, small: dict[str, Any]) -> None:
    with claimed(TrainConfig(**small), tmp_path, fresh=False):
        pass
    changed = TrainConfig(**{**small, "learning_rate": 0.02, "filters": [4, 9], "wb_group": "new"})
    assert changed_settings(TrainConfig(**small), tmp_path) == []
    assert changed_settings(changed, tmp_path) == [
        "filters: [4, 8] -> [4, 9]",
        "learning_rate: 0.01 -> 0.02",
    ]
    with pytest.raises(ConfigError, match=r"learning_rate: 0.01 -> 0.02.*--fresh.*--force"):
        RunPlace(tmp_path).check_same_run(changed)


def test_a_setting_that_the_stored_run_did_not_know_is_no_change(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    config = TrainConfig(**small)
    stored = config.model_dump(mode="json")
    del stored["dropout"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    RunPlace(tmp_path).check_same_run(config)


def test_a_folder_has_one_command_at_a_time_and_fresh_empties_it(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    config = TrainConfig(**small)
    with claimed(config, tmp_path, fresh=False):
        (tmp_path / "checkpoints").mkdir()
        with (
            pytest.raises(ConfigError, match="another process trains this run"),
            claimed(config, tmp_path, fresh=False),
        ):
            pass
    with claimed(config, tmp_path, fresh=True):
        assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.json"}


def test_starting_over_deletes_runs_and_nothing_else(
    tmp_path: Path, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, photos = TrainConfig(**small), tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_text("precious")
    with (
        pytest.raises(
            ConfigError, match="photos: holds no run, and starting over would delete what is there"
        ),
        claimed(config, photos, fresh=True),
    ):
        pass
    assert (photos / "a.jpg").read_text() == "precious"
    # Killed while it is emptied, a run's folder is still known as one.
    run = tmp_path / "run"
    with claimed(config, run, fresh=False):
        for name in ("a", "b", "z"):
            (run / name).write_text("")
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.name == "z":
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt), claimed(config, run, fresh=True):
            pass
    with claimed(config, run, fresh=True):
        assert {path.name for path in run.iterdir()} == {".lock", "config.json"}


def test_space_that_will_be_needed_is_asked_for_before_the_start(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "deeper", "--storage", at_least=1000)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match=r"--storage: 1,000,000,000,000 MB are needed at least, .* free"):
        check_writable(tmp_path, "--storage", at_least=10**18)


def test_out_is_a_file_for_one_config_and_a_folder_or_a_pattern_for_any_number(tmp_path: Path) -> None:
    one, two = tmp_path / "one.weights", tmp_path / "two.weights"
    sources = ["configs/one.json", "two.yaml"]
    assert out_files(None, sources) == [None, None]
    assert out_files(str(one), sources[:1]) == [one]
    assert out_files(str(tmp_path), sources) == [one, two]
    assert out_files(f"{tmp_path}/new/", sources) == [tmp_path / "new" / path.name for path in (one, two)]
    assert out_files(f"{tmp_path}/{{name}}-a.pt", sources)[1] == tmp_path / "two-a.pt"
    with pytest.raises(ConfigError, match="one file for 2 configs; give a folder"):
        out_files(str(one), sources)
    with pytest.raises(ConfigError, match="a/one.json and b/one.yaml would both be written to"):
        out_files(str(tmp_path), ["a/one.json", "b/one.yaml"])
    with pytest.raises(ConfigError, match="--out: no folder"):
        out_files("/nowhere/deep/x.weights", sources[:1])


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("", "--out: is empty"),
        ("/dev/null", "--out: /dev/null is no file to write over"),
        ("run.json", "run.json is a configuration, which would be written over"),
        ("run", "run.json is a configuration, which would be written over"),  # described in run.json
        ("folder/{name}", "folder/run is a folder"),
    ],
)
def test_weights_are_written_over_weights_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "folder" / "run").mkdir(parents=True)
    with pytest.raises(ConfigError, match=message) as error:
        out_files(out, ["run.json"])
    assert len(error.value.problems) == 1


def test_a_tilde_in_out_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert out_files("~/a.weights", ["run.json"]) == [tmp_path / "a.weights"]
