"""Every message names the key, what was given and what is allowed, in one line."""

import json
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from data import DATASETS, DataError, Preprocessing, check_data, open_data
from data.beton_index import _FIELD, _HEADER, _REGION, _ROWS
from data.beton_writer import write_beton
from data.manifest import manifest_path

BLACK = np.zeros((8, 8, 3), np.uint8)


def without_manifest(path, labels):
    """A .beton file as ffcv alone would leave it."""
    written = write_beton(path, [(BLACK, 0)] * len(labels), ["only"])
    content = bytearray(written.read_bytes())
    start = _HEADER.itemsize + 2 * _FIELD.itemsize
    row = np.dtype(
        [("image", "u1", 16), ("label", "<i8")], align=True
    )  # ffcv's image entry: 13 bytes, padded
    assert row.itemsize == 24
    rows = np.frombuffer(content, row, count=len(labels), offset=start)
    rows["label"] = labels
    written.write_bytes(content)
    manifest_path(written).unlink()
    return str(written)


def refused(match, *, open_it=False, **arguments):
    with pytest.raises(DataError, match=match) as caught:
        (open_data if open_it else check_data)(**arguments)
    assert "\n" not in str(caught.value)


def test_unknown_keyword_names_the_known_ones():
    refused(r"dataset: unknown data set 'mnist'; one of: .*digits.*ffcv", dataset="mnist")


def test_paths_that_would_be_ignored_are_refused():
    refused(
        r"dataset_path: x.beton would not be used by dataset digits", dataset="digits", dataset_path="x.beton"
    )
    refused(r"dataset_val_path: .*would not be used", dataset="digits", dataset_val_path="x.beton")


def test_missing_paths_are_named(photos):
    refused(r"dataset_path: not given; dataset ffcv needs", dataset="ffcv")
    refused(r"dataset_val_path: not given", dataset="ffcv", dataset_path=photos["dataset_path"])
    refused(r"dataset_path: is empty; give a path", dataset="ffcv", dataset_path="")


@pytest.mark.parametrize("key", ["dataset_path", "dataset_val_path"])
def test_file_that_is_not_there_or_a_folder_is_named(photos, key, tmp_path):
    refused(
        rf"{key}: no file at {tmp_path}/none.beton", dataset="ffcv", **photos | {key: tmp_path / "none.beton"}
    )
    refused(rf"{key}: {tmp_path} is a folder; give a .beton file", dataset="ffcv", **photos | {key: tmp_path})


@pytest.mark.parametrize("size", [0, 1, 23, 24, 1000, 3000, 2_100_000, -24, -1])
def test_truncated_file_is_refused_however_much_is_left(photos, size, tmp_path):
    content = Path(photos["dataset_path"]).read_bytes()
    torn = tmp_path / "torn.beton"
    torn.write_bytes(content[:size])
    refused(
        rf"dataset_path: {torn} (is not a .beton file, or is incomplete|is damaged)",
        dataset="ffcv",
        **photos | {"dataset_path": torn},
    )


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_refused(photos, seed, tmp_path):
    noise = tmp_path / "noise.beton"
    noise.write_bytes(np.random.default_rng(seed).bytes(5000))
    refused("dataset_path: .*is not a .beton file", dataset="ffcv", **photos | {"dataset_path": noise})


@pytest.mark.parametrize("seed", range(60))
def test_damaged_index_raises_or_reads_but_never_ends_the_process(photos, seed, tmp_path):
    content = bytearray(Path(photos["dataset_path"]).read_bytes())
    rng = np.random.default_rng(seed)
    index_end = _HEADER.itemsize + 2 * _FIELD.itemsize + 24 * 37
    table = int(np.frombuffer(content, _HEADER, count=1)["table"][0])
    spots = [*range(_HEADER.itemsize), *range(_HEADER.itemsize + 2 * _FIELD.itemsize, index_end)]
    spots += range(table, len(content))
    for spot in rng.choice(spots, 2):
        content[spot] ^= 1 << int(rng.integers(8))
    damaged = tmp_path / "damaged.beton"
    damaged.write_bytes(content)
    with suppress(DataError):
        data = open_data("ffcv", batch_size=2, image_size=8, **photos | {"dataset_path": damaged})
        list(data.train.epoch(0))


def test_file_that_its_manifest_does_not_fit_is_refused(photos, tmp_path):
    path = write_beton(tmp_path / "a.beton", [(BLACK, 0)] * 3, ["a"])
    path.write_bytes(path.read_bytes()[:-100])
    refused(
        r"dataset_path: .*a.beton has \d+ bytes, its manifest says",
        dataset="ffcv",
        **photos | {"dataset_path": path},
    )


@pytest.mark.parametrize(("field", "allowed"), [("image", "no image field"), ("label", "no integer field")])
def test_file_without_image_or_label_field_is_refused(photos, tmp_path, field, allowed):
    path = write_beton(tmp_path / "a.beton", [(BLACK, 0)] * 3, ["a"])
    renamed = path.read_bytes().replace(field.encode() + b"\0", b"other\0", 1)
    path.write_bytes(renamed)
    refused(
        f"dataset_path: .*has {allowed} called '{field}'; it has .*other",
        dataset="ffcv",
        **photos | {"dataset_path": path},
    )  # noqa: E501


def test_negative_and_absurd_labels_are_refused(photos, tmp_path):
    negative = without_manifest(tmp_path / "negative.beton", [0, 1, -1])
    refused(
        "dataset_path: .*has label -1 at image 2; labels are integers from 0",
        dataset="ffcv",
        **photos | {"dataset_path": negative},
    )  # noqa: E501
    absurd = without_manifest(tmp_path / "absurd.beton", [0, 10**12])
    refused(
        "dataset_path: .*has label 1000000000000 at image 1",
        dataset="ffcv",
        **photos | {"dataset_path": absurd},
    )


def test_label_beyond_the_manifests_classes_is_refused(photos, tmp_path):
    path = without_manifest(tmp_path / "a.beton", [0, 0, 3])
    size = Path(path).stat().st_size
    manifest = {"version": 1, "class_names": ["a", "b"], "bytes": size, "sha256": ""}
    (tmp_path / "a.beton.json").write_text(json.dumps(manifest))
    refused(
        "label 3 at image 2; labels are integers from 0 to 1",
        dataset="ffcv",
        **photos | {"dataset_path": path},
    )


def test_json_beside_a_file_that_is_no_manifest_is_passed_over(tmp_path):
    path = write_beton(tmp_path / "a.beton", [(BLACK, 0)], ["only"])
    manifest = json.loads(manifest_path(path).read_text())
    for content in (manifest | {"class_names": 1}, {"class_names": ["x"]}, [], "x"):
        manifest_path(path).write_text(json.dumps(content))
        assert check_data("ffcv", dataset_path=path, dataset_val_path=path).class_names == ("0",)


def test_file_without_manifest_has_as_many_classes_as_its_largest_label_says(tmp_path):
    train = without_manifest(tmp_path / "train.beton", [0, 4, 2])
    validation = without_manifest(tmp_path / "validation.beton", [1])
    info = check_data("ffcv", dataset_path=train, dataset_val_path=validation)
    assert info.class_names == ("0", "1", "2", "3", "4")
    assert info.image_size == 224


def test_validation_with_more_classes_than_training_is_refused(tmp_path):
    train = without_manifest(tmp_path / "train.beton", [0, 1])
    validation = without_manifest(tmp_path / "validation.beton", [2])
    refused(
        "dataset_val_path: .*has 3 classes, dataset_path only 2",
        dataset="ffcv",
        dataset_path=train,
        dataset_val_path=validation,
    )


def test_validation_with_other_class_names_is_refused(tmp_path):
    train = write_beton(tmp_path / "train.beton", [(BLACK, 0)], ["cat", "dog"])
    validation = write_beton(tmp_path / "validation.beton", [(BLACK, 0)], ["dog", "cat"])
    refused(
        "dataset_val_path: the class names of",
        dataset="ffcv",
        dataset_path=train,
        dataset_val_path=validation,
    )


@pytest.mark.parametrize("size", [7, 65, 32.0, "32", True])
def test_image_size_out_of_range_is_refused(size):
    given = re.escape(repr(size))
    refused(f"image_size: must be an integer from 8 to 64 .*got {given}", dataset="digits", image_size=size)


@pytest.mark.parametrize(
    ("match", "arguments"),
    [
        ("batch_size: must be 1 or more, got 0", {"batch_size": 0}),
        ("batch_size: 10 images cannot be shared equally by 3 workers", {"batch_size": 10, "world_size": 3}),
        ("batch_size: 1439 is more than the 1438 training images", {"batch_size": 1439}),
        ("rank: must be 0 to 1 with 2 workers, got 2", {"batch_size": 10, "rank": 2, "world_size": 2}),
        ("loader_threads: must be 1 or more, got 0", {"batch_size": 10, "loader_threads": 0}),
    ],
)
def test_batches_that_cannot_be_made_are_refused(match, arguments):
    refused(match, open_it=True, dataset="digits", **arguments)


@pytest.mark.slow
def test_folders_that_may_not_be_entered_are_refused_in_one_line(run_python):
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path open to all users
        Path(name).chmod(0o755)
        for inner in ("data", "cache"):
            (Path(name) / inner).mkdir(mode=0)
        code = f"""
import os
import data.voc
data.check_data("digits")  # imports what it needs
if os.getuid() == 0:
    os.setuid(65534)
at = {name!r} + "/data"
def refused(check, *arguments, **paths):
    try:
        check(*arguments, **paths)
    except data.DataError as error:
        print(error)
for dataset in ("imagenet", "imagenet_small", "imagenet_kaggle", "cifar10"):
    refused(data.check_data, dataset, dataset_path=at)
    refused(data.check_data, dataset, dataset_path=at + "/inner")
refused(data.check_data, "ffcv", dataset_path=at + "/a.beton", dataset_val_path="b.beton")
refused(data.voc.VocSegmentation, at)
refused(data.voc.VocSegmentation, at + "/inner")
os.environ["RECURRENT_VISION_CACHE"] = {name!r} + "/cache"
refused(data.check_data, "digits")
"""
        ended = run_python(code)
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert len(lines) == 12
    assert all(name in line for line in lines)
    assert "set RECURRENT_VISION_CACHE to a folder that can be read" in lines[-1]


def test_preprocessing_survives_json_and_refuses_other_keys(photos):
    preprocessing = check_data("ffcv", **photos).preprocessing
    assert preprocessing.mean == pytest.approx((123.675, 116.28, 103.53))
    assert preprocessing.crop_ratio == 0.875
    stored = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(stored) == preprocessing
    with pytest.raises(ValueError, match="preprocessing has the keys"):
        Preprocessing.from_dict(stored | {"gamma": 1})


def test_every_data_set_says_in_a_line_what_it_is():
    assert {"digits", "ffcv"} <= set(DATASETS)
    assert all(spec.summary and "\n" not in spec.summary for spec in DATASETS.values())


def test_header_types_are_those_of_ffcv():
    from ffcv.types import ALLOC_TABLE_TYPE, CURRENT_VERSION, FieldDescType, HeaderType

    pairs = ((_HEADER, HeaderType), (_FIELD, FieldDescType), (_REGION, ALLOC_TABLE_TYPE))
    for ours, theirs in pairs:
        assert ours.itemsize == theirs.itemsize
        assert [ours.fields[name][1] for name in ours.names] == [
            theirs.fields[name][1] for name in theirs.names
        ]
    assert CURRENT_VERSION == 2


def test_index_entries_are_those_of_ffcvs_field_types():
    from ffcv.fields import NDArrayField, TorchTensorField
    from ffcv.types import TYPE_ID_HANDLER

    for type_id, handler in TYPE_ID_HANDLER.items():
        if handler is None:
            assert type_id not in _ROWS
        elif handler in (NDArrayField, TorchTensorField):
            assert handler.metadata_type.fget(None) == _ROWS[type_id]
        else:
            assert handler().metadata_type == _ROWS[type_id]
