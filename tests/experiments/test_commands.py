"""The commands as users run them: on the embedded sample, and on a small Pascal VOC."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from data import DataError, Preprocessing, check_data
from data.beton_writer import write_beton
from experiments import accuracy, objective
from experiments.errors import InputError
from experiments.forward import stimulus_batches, to_input
from experiments.report import __main__ as report
from experiments.results import is_done, read_result
from experiments.rsa import __main__ as rsa
from experiments.rsa.evaluate import read_rdms
from experiments.rsa.toolbox import to_rsatoolbox
from experiments.sources import open_source
from experiments.stimuli import __main__ as stimuli
from experiments.weights import find_weights, read_weights
from tests.experiments.conftest import random_weights

VOC_NAMES = ["bottle", "n02123045", "cow", "train", "submarine"]  # n02123045: tabby, a cat


@pytest.fixture(scope="module")
def analysed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all analyses of the trained network on the digits, and of the report."""
    out = tmp_path_factory.mktemp("analysis")
    common = ["--weights", str(trained), "--out", str(out)]
    shown = ["--dataset", "digits", "--limit", "120"]
    assert stimuli.main([*common, *shown, "--permutations", "500"]) == 0
    assert rsa.main([*common, *shown, "--bootstraps", "50"]) == 0
    assert accuracy.main(common) == 0
    assert report.main([str(out)]) == 0
    return out


def only(out: Path, pattern: str) -> Path:
    (path,) = out.glob(f"*/{pattern}")
    return path


def test_decisions_add_up_to_the_result(analysed: Path) -> None:
    result = read_result(only(analysed, "stimuli-digits-thesis.json"))
    with only(analysed, "stimuli-digits-thesis-decisions.csv").open() as file:
        decisions = list(csv.DictReader(file))
    assert list(decisions[0])[:8] == [
        "subj", "session", "trial", "rt", "object_response", "category", "condition", "imagename"
    ]  # fmt: skip
    hits = Counter(
        (row["condition"], int(row["time_step"]))
        for row in decisions
        if row["object_response"] == row["category"]
    )
    assert len(result.rows) == 5 * 3
    for row in result.rows:
        assert row.hits == hits[row.stimulus, row.time_step]
        assert sum(count for _, count in row.null) == 500
        assert row.low < row.accuracy < row.high
    normal = [row for row in result.rows if row.stimulus == "normal" and row.time_step == 3]
    assert normal[0].accuracy > 0.5  # it was trained on digits
    assert normal[0].p == 1 / 501


def test_accuracy_after_the_last_step_is_that_of_the_training_run(analysed: Path, trained: Path) -> None:
    result = read_result(only(analysed, "accuracy.json"))
    about = json.loads(trained.with_name(trained.name + ".json").read_text())
    assert result.rows[-1].time_step == 3
    assert result.rows[-1].accuracy == pytest.approx(about["metrics"]["val_acc"], abs=1e-9)
    state = torch.load(trained, weights_only=True)
    assert result.parameters == sum(
        v.numel() for k, v in state.items() if "running" not in k and "num_b" not in k
    )
    macs = [row.macs for row in result.rows]
    assert macs[0] < macs[1] < macs[2]


def test_rdms_are_those_of_the_networks_own_states(analysed: Path, trained: Path) -> None:
    rdms, classes, images = read_rdms(only(analysed, "rsa-digits-thesis-fixed.npz"))
    weights = read_weights(trained)
    model = weights.model(torch.device("cpu"))
    source = open_source("digits", None, limit=120)
    (batch,) = stimulus_batches(source, "frankenstein", 32, 500, protocol="thesis", seed=0)
    with torch.inference_mode():
        _, hidden = model(
            to_input(batch[0], weights.preprocessing, torch.device("cpu")), time_steps=2, return_hidden=True
        )
    order = np.argsort(source.class_ids, kind="stable")
    assert classes == [str(i) for i in source.class_ids[order]]
    assert images == [batch[1][i] for i in order]
    states = hidden[1].flatten(1).double().numpy()[order]
    i, j = np.triu_indices(len(states), 1)
    expected = ((states[i] - states[j]) ** 2).mean(axis=1)
    np.testing.assert_allclose(rdms["frankenstein/hidden2/t2"], expected, rtol=1e-4)
    # The first block has no memory: one RDM for all steps. The label's RDM is not stored.
    assert {name.split("/", 1)[1] for name in rdms} == {
        "image/t0", "hidden1/t1", "hidden2/t1", "hidden2/t2", "hidden2/t3"
    }  # fmt: skip
    assert to_rsatoolbox(rdms, classes, images).n_cond == len(classes)


def test_rsa_rows_hold_intervals_and_adjusted_p(analysed: Path) -> None:
    result = read_result(only(analysed, "rsa-digits-thesis-fixed.json"))
    assert {row.stimulus for row in result.rows} == {
        "foreground", "silhouette", "frankenstein", "serrated", "label"
    }  # fmt: skip
    for row in result.rows:
        assert row.low <= row.mean <= row.high
        assert row.p <= row.p_adjusted <= 1
    pixels = {row.stimulus: row.value for row in result.rows if row.layer == "image"}
    assert pixels["foreground"] > pixels["frankenstein"]


def test_report_is_one_page_that_fetches_nothing_with_figures_beside_it(analysed: Path) -> None:
    folder = analysed / "report"
    page = (folder / "report.html").read_text()
    assert "http" not in page
    assert page.count("data:image/png;base64,") == len(list(folder.glob("*.png"))) == 4
    assert len(list(folder.glob("*.pdf"))) == len(list(folder.glob("*.png")))
    for stated in ("n = 120 images", "Benjamini-Hochberg", "95% Wilson", "SHA-256"):
        assert stated in page
    with (folder / "models.csv").open() as file:
        (model,) = csv.DictReader(file)
    assert float(model["validation"]) > 0.5


def test_finished_results_are_recognised_and_others_done_again(
    analysed: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = only(analysed, "stimuli-digits-thesis.json")
    before = path.stat().st_mtime_ns
    arguments = ["--weights", str(trained), "--out", str(analysed), "--dataset", "digits", "--limit", "120"]
    assert stimuli.main([*arguments, "--permutations", "500"]) == 0
    assert "done already" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == before
    first = read_result(path)
    assert stimuli.main([*arguments, "--permutations", "500", "--fresh"]) == 0
    assert read_result(path).rows == first.rows  # seeded: the same numbers
    assert stimuli.main([*arguments, "--permutations", "500", "--batch-size", "7"]) == 0
    assert "done already" in capsys.readouterr().out  # less memory gives the same numbers
    assert stimuli.main([*arguments, "--permutations", "400"]) == 0
    assert f"replaces a result of other settings, {path}" in capsys.readouterr().out
    assert read_result(path).provenance.settings["permutations"] == 400


def on_voc(weights: Path, out: Path, voc: Path) -> list[str]:
    return ["--weights", str(weights), "--out", str(out), "--dataset", "voc", "--path", str(voc)]


@pytest.mark.parametrize("protocol", ["thesis", "shapebias"])
def test_voc_is_analysed_with_two_state_cells(tmp_path: Path, voc: Path, protocol: str) -> None:
    weights = random_weights(tmp_path, VOC_NAMES)
    common = on_voc(weights, tmp_path / "out", voc)
    common += ["--protocol", protocol, "--time-steps", "1,4"]
    assert stimuli.main([*common, "--permutations", "100", "--stimuli", "normal", "shilouette"]) == 0
    result = read_result(only(tmp_path / "out", f"stimuli-voc-{protocol}.json"))
    # The thesis drops what is marked difficult.
    kept = 20 if protocol == "thesis" else 21
    assert result.data["images"] == kept
    assert {(row.stimulus, row.time_step) for row in result.rows} == {
        (stimulus, step) for stimulus in ("normal", "silhouette") for step in (1, 4)
    }
    assert rsa.main([*common, "--bootstraps", "20", "--method", "weighted", "--bootstrap", "images"]) == 0
    rows = read_result(only(tmp_path / "out", f"rsa-voc-{protocol}-weighted.json")).rows
    assert {row.layer for row in rows} == {"image", "hidden1", "cell1", "hidden2", "cell2"}


def test_a_resnet_is_analysed_after_its_one_step(tmp_path: Path, voc: Path) -> None:
    weights = random_weights(tmp_path, VOC_NAMES, model_base="resnet18", time_steps=3)
    shown = on_voc(weights, tmp_path / "out", voc)
    assert stimuli.main([*shown, "--permutations", "9", "--limit", "8", "--stimuli", "normal"]) == 0
    assert rsa.main([*shown, "--bootstraps", "9", "--limit", "8", "--stimuli", "normal", "silhouette"]) == 0
    rows = read_result(only(tmp_path / "out", "rsa-voc-thesis-fixed.json")).rows
    assert {(row.layer, row.time_step) for row in rows if row.time_step} == {
        (f"hidden{stage}", 1) for stage in (1, 2, 3, 4)
    }
    known = read_weights(weights)
    network = known.model(torch.device("cpu"))
    given = (network, known.preprocessing, known.class_names, known.time_steps)
    values = objective.measure(*given, metrics=("silhouette_acc",), dataset="voc", path=str(voc))
    assert 0 <= values["silhouette_acc"] <= 1


@pytest.mark.slow
@pytest.mark.ray
def test_many_weights_run_as_ray_tasks_and_a_broken_one_stops_no_other(
    tmp_path: Path, voc: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        random_weights(tmp_path, VOC_NAMES, seed)
    broken = tmp_path / "net1.weights"
    broken.write_bytes(broken.read_bytes()[:200])
    arguments = [
        "--weights",
        str(tmp_path / "net*.weights"),
        "--out",
        str(tmp_path / "out"),
        "--dataset",
        "voc",
    ]
    arguments += ["--path", str(voc), "--permutations", "50", "--workers", "2", "--stimuli", "normal"]
    assert stimuli.main(arguments) == 1
    printed = capfd.readouterr()
    assert "3/3" in printed.out + printed.err
    assert "not a weights file" in printed.err
    assert len(list((tmp_path / "out").glob("*/stimuli-voc-thesis.json"))) == 2
    random_weights(tmp_path, VOC_NAMES, 1)
    assert stimuli.main(arguments) == 0
    assert capfd.readouterr().out.count("done already") == 2
    assert report.main([str(tmp_path / "out")]) == 0
    with (tmp_path / "out/report/models.csv").open() as file:
        assert sorted(row["seed"] for row in csv.DictReader(file)) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "{trained}", "--dataset", "voc"], "--path: give the VOC folder"),
        (["--weights", "{trained}", "--dataset", "digits", "--path", "x"], "--path: give the VOC folder"),
        (["--weights", "/nowhere/a.weights", "--dataset", "digits"], "no file at /nowhere/a.weights"),
        (["--weights", "/nowhere/*.weights", "--dataset", "digits"], "no file matches"),
        (
            ["--weights", "{trained}", "--dataset", "digits", "--time-steps", "0-3"],
            "--time-steps: must be like",
        ),
        (
            ["--weights", "{trained}", "--dataset", "digits", "--stimuli", "sketch"],
            "unknown stimulus 'sketch'",
        ),
        (["--weights", "{trained}", "--dataset", "digits", "--permutations", "0"], "--permutations: .*got 0"),
        (["--weights", "{trained}", "--dataset", "digits", "--limit", "0"], "--limit: .*got 0"),
        (["--weights", "{trained}", "--dataset", "digits", "--device", "tpu3"], "--device: unknown device"),
        (["--weights", "{trained}", "--dataset", "digits", "--device", "meta"], "--device: unknown device"),
        (
            ["--weights", "{trained}", "--dataset", "digits", "--device", "cuda:64"],
            "--device: no cuda:64 here",
        ),
        (["--weights", "{trained}", "--dataset", "digits", "--seed", "-1"], "--seed: .*got -1"),
        (
            ["--weights", "{trained}", "--dataset", "digits", "--out", "/proc/x"],
            "--out: /proc cannot be written",
        ),
        (["--weights", "{trained}", "--dataset", "voc", "--path", "/nowhere"], "no folder at /nowhere"),
        (
            ["--weights", "{trained}", "--dataset", "voc", "--path", "{voc}"],
            "the network's classes .* none of voc's",
        ),
    ],
)
def test_wrong_input_ends_with_2_and_one_line(
    arguments: list[str],
    message: str,
    trained: Path,
    voc: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [argument.format(trained=trained, voc=voc) for argument in arguments]
    assert stimuli.main(["--out", str(tmp_path / "out"), *filled]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_for_all_weights_is_told_once_before_the_first(
    tmp_path: Path, voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        random_weights(tmp_path, VOC_NAMES, seed)
    shown = ["--weights", str(tmp_path / "*.weights"), "--out", str(tmp_path / "out"), "--dataset", "voc"]
    for command, arguments, message in [
        (stimuli, ["--path", "/nowhere"], "no folder at /nowhere"),
        (stimuli, ["--path", str(voc), "--time-steps", "0"], "--time-steps: must be like"),
        (
            rsa,
            ["--path", str(voc), "--stimuli", "silhouette"],
            "--stimuli: RSA compares others with 'normal'",
        ),
        (rsa, ["--path", str(voc), "--method", "weighted"], "--method: .* at least 6 classes, got 4"),
    ]:
        assert command.main([*shown, *arguments]) == 2
        error = capsys.readouterr().err
        assert re.search(message, error)
        assert error.count("\n") == 1
    (tmp_path / "out").write_text("a file")
    assert stimuli.main([*shown, "--path", str(voc)]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert report.main([str(tmp_path / "out")]) == 2


def test_files_that_are_called_like_a_pattern_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "lr [1e-3] ü"
    folder.mkdir()
    path = random_weights(folder, VOC_NAMES)
    assert [weights.path for weights in find_weights([str(path)])] == [path]
    assert [weights.path for weights in find_weights([str(tmp_path / "*/*.weights")])] == [path]


@pytest.mark.parametrize("content", [b"", b"hello world", b'{"a": 1}', b"PK\x03\x04 nothing"])
def test_a_file_that_holds_no_weights_is_named(tmp_path: Path, content: bytes) -> None:
    path = random_weights(tmp_path, VOC_NAMES)
    path.write_bytes(content)
    with pytest.raises(InputError, match="net0.weights: not a weights file"):
        read_weights(path).model(torch.device("cpu"))


def test_results_of_another_json_beside_the_weights_are_done_again(
    tmp_path: Path, voc: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = random_weights(tmp_path, VOC_NAMES)
    arguments = ["--weights", str(weights), "--out", str(tmp_path / "out"), "--dataset", "voc"]
    arguments += ["--path", str(voc), "--permutations", "9", "--stimuli", "normal"]
    beside = weights.with_name(weights.name + ".json")
    about = json.loads(beside.read_text())
    for change in (
        {},
        {"class_names": VOC_NAMES[::-1]},
        {"preprocessing": {**about["preprocessing"], "image_size": 40}},
    ):
        beside.write_text(json.dumps({**about, **change}))
        assert stimuli.main(arguments) == 0
        assert "done already" not in capsys.readouterr().out
        assert stimuli.main(arguments) == 0
        assert "done already" in capsys.readouterr().out


def test_results_of_another_schema_are_done_again_and_not_reported(
    analysed: Path, tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old" / "stimuli-digits-thesis.json"
    path.parent.mkdir()
    content = json.loads(only(analysed, "stimuli-digits-thesis.json").read_text())
    settings = content["provenance"]["settings"]
    path.write_text(json.dumps(content))
    assert is_done(path, read_weights(trained), settings)
    content["provenance"]["schema_version"] = 1
    path.write_text(json.dumps(content))
    assert not is_done(path, read_weights(trained), settings)
    assert report.main([str(tmp_path)]) == 2
    assert re.search(f"{path}: written by another version .*schema 1", capsys.readouterr().err)


def test_an_analysis_killed_while_it_writes_leaves_no_older_result_as_its_own(
    tmp_path: Path, voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = random_weights(tmp_path, VOC_NAMES)
    shown = on_voc(weights, tmp_path / "out", voc)
    for command, option, written in [
        (stimuli, "--permutations", "write_result"),
        (rsa, "--bootstraps", "write_result"),
    ]:
        assert command.main([*shown, option, "9"]) == 0
        module = command.__name__.replace("__main__", "evaluate")

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{written}", killed)
            assert command.main([*shown, option, "8"]) == 130
    assert not list((tmp_path / "out").glob("*/*.json"))  # what is beside them is of the second run


def test_accuracy_wants_the_classes_that_the_network_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert accuracy.other_class(["cat", "dog"], ["cat", "dog", "owl"]) is None
    assert accuracy.other_class(["cat", "owl"], ["cat", "dog", "owl"]) == 1
    assert accuracy.other_class(["0", "1"], ["cat", "dog"]) is None  # a file without names
    assert accuracy.other_class(["cat", "dog"], ["0", "1", "2"]) is None
    images = str(tmp_path / "val.beton")
    write_beton(images, [(np.zeros((8, 8, 3), dtype=np.uint8), i % 2) for i in range(4)], ["dog", "cat"])
    weights = random_weights(tmp_path, ["cat", "dog"])
    beside = weights.with_name(weights.name + ".json")
    info = check_data("ffcv", dataset_path=images, dataset_val_path=images, image_size=48)
    about = {**json.loads(beside.read_text()), "preprocessing": info.preprocessing.to_dict()}
    beside.write_text(json.dumps(about))
    arguments = ["--weights", str(weights), "--out", str(tmp_path / "out"), "--dataset", "ffcv"]
    assert accuracy.main([*arguments, "--path", images]) == 2
    assert "class 0 of ffcv is 'dog', that of" in capsys.readouterr().err


def test_accuracy_of_a_run_without_ffcv_needs_none(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise DataError("ffcv is not installed")

    monkeypatch.setattr("data.registry.require_ffcv", absent)
    path = tmp_path / "model.weights"
    path.write_bytes(trained.read_bytes())
    about = json.loads(trained.with_name(trained.name + ".json").read_text())
    about["config"]["loader"] = "torch"
    path.with_name(path.name + ".json").write_text(json.dumps(about))
    assert accuracy.main(["--weights", str(path), "--out", str(tmp_path), "--time-steps", "3"]) == 0
    result = read_result(only(tmp_path, "accuracy.json"))
    assert result.rows[0].accuracy == pytest.approx(about["metrics"]["val_acc"], abs=0.01)


def test_weights_without_their_json_or_with_another_networks_are_refused(tmp_path: Path) -> None:
    path = random_weights(tmp_path, VOC_NAMES)
    beside = path.with_name(path.name + ".json")
    about = json.loads(beside.read_text())
    beside.write_text(json.dumps({**about, "config": {**about["config"], "filters": [3, 6]}}))
    with pytest.raises(InputError, match="does not fit .*net0.weights.json"):
        read_weights(path).model(torch.device("cpu"))
    del about["class_names"]
    beside.write_text(json.dumps(about))
    with pytest.raises(InputError, match="has no key 'class_names'"):
        read_weights(path)
    beside.unlink()
    with pytest.raises(InputError, match="no file at .*net0.weights.json"):
        read_weights(path)


def test_normalisation_is_that_of_the_training_data() -> None:
    preprocessing = Preprocessing(2, (10.0, 20.0, 30.0), (2.0, 4.0, 5.0))
    pixels = np.full((1, 2, 2, 3), 40, dtype=np.uint8)
    images = to_input(pixels, preprocessing, torch.device("cpu"))
    assert images[0, :, 1, 0].tolist() == [15.0, 5.0, 2.0]
