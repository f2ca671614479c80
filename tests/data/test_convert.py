"""python -m data.beton: what it writes, what it refuses, and what it leaves behind."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from data import check_data, open_data
from data.beton import main, subset
from data.beton_index import BetonImages, inspect_beton
from data.encode import WriteSettings, encode
from data.images import ArrayImages
from data.order import hash_indices

WORDNET_IDS = ("n01440764", "n02110185", "n02123045")


def files(folder):
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"} if folder.exists() else set()


WRITTEN = {"train.beton", "train.beton.json", "validation.beton", "validation.beton.json"}


def converted(trees, out, *more, source="imagenet"):
    arguments = [source, "--path", str(trees[source]), "--out", str(out), "--processes", "1", *more]
    return main(arguments)


def images_of(path):
    return BetonImages(inspect_beton(path, "dataset_path"))


def test_files_and_manifests_of_both_splits_are_written_and_train(trees, tmp_path, capsys):
    assert converted(trees, tmp_path) == 0
    assert files(tmp_path) == WRITTEN
    manifest = json.loads((tmp_path / "train.beton.json").read_text())
    assert manifest["samples_per_class"] == [5, 4, 3]
    assert manifest["skipped"] == []
    assert manifest["settings"] == {"write_mode": "jpg", "max_resolution": None, "jpeg_quality": None}
    assert "train.beton: 12 images in 3 classes" in capsys.readouterr().out
    paths = {"dataset_path": tmp_path / "train.beton", "dataset_val_path": tmp_path / "validation.beton"}
    assert check_data("imagenet", **paths).class_names == ("n01440764", "n02110185", "n02123045")
    next(open_data("ffcv", batch_size=4, image_size=16, **paths).train.epoch(0))


def test_jpeg_files_are_kept_as_they_are_unless_they_shrink(trees, tmp_path):
    converted(trees, tmp_path / "a")
    kept = images_of(tmp_path / "a/train.beton")
    first = trees["imagenet"] / "train/n01440764/n01440764_0.JPEG"
    assert kept.stored(0) == first.read_bytes()
    converted(trees, tmp_path / "b", "--max-resolution", "45")
    small = images_of(tmp_path / "b/train.beton")
    for index in range(12):
        (height, width, _), (h, w, _) = kept.read(index).shape, small.read(index).shape
        if max(height, width) <= 45:
            assert (h, w) == (height, width)
        else:
            assert max(h, w) == 45
            assert abs(h / w - height / width) < 0.03  # not squashed


def test_raw_files_hold_the_decoded_pixels_and_proportion_both(trees, tmp_path):
    for mode in ("jpg", "raw", "proportion"):
        converted(trees, tmp_path / mode, "--write-mode", mode)
    jpg, raw, mixed = (images_of(tmp_path / mode / "train.beton") for mode in ("jpg", "raw", "proportion"))
    assert [raw.stored(i) for i in range(12)] == [None] * 12
    assert 0 < sum(mixed.stored(i) is None for i in range(12)) < 12
    for index in range(12):
        assert (raw.read(index) == jpg.read(index)).all()
        assert (mixed.read(index) == jpg.read(index)).all()


def test_quality_makes_files_smaller(trees, tmp_path):
    converted(trees, tmp_path, "--jpeg-quality", "20")
    small = images_of(tmp_path / "train.beton")
    first = trees["imagenet"] / "train/n01440764/n01440764_0.JPEG"
    assert len(small.stored(0)) < first.stat().st_size


@pytest.mark.slow
def test_processes_change_no_byte(trees, tmp_path):
    arguments = ["imagenet", "--path", str(trees["imagenet"]), "--max-resolution", "50"]
    for processes in ("1", "2"):
        assert main([*arguments, "--out", str(tmp_path / processes), "--processes", processes]) == 0
    for name in ("train.beton", "validation.beton"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_the_same_command_writes_only_what_is_missing(trees, tmp_path, capsys):
    converted(trees, tmp_path)
    before = (tmp_path / "train.beton").stat().st_mtime_ns
    (tmp_path / "validation.beton").unlink()
    assert converted(trees, tmp_path) == 0
    assert (tmp_path / "train.beton").stat().st_mtime_ns == before
    assert "train.beton is there already: 12 images" in capsys.readouterr().out
    assert files(tmp_path) == WRITTEN
    assert converted(trees, tmp_path, "--jpeg-quality", "50") == 2
    assert "made otherwise, or is damaged; --force replaces it" in capsys.readouterr().err
    assert converted(trees, tmp_path, "--jpeg-quality", "50", "--force") == 0


def images_with(labels):
    pixels = np.zeros((len(labels), 8, 8, 3), np.uint8)
    return ArrayImages("x", ("a", "b", "c"), "", lambda: (pixels, labels))


def test_subset_has_every_class_with_its_share_and_depends_on_the_seed(trees, tmp_path):
    labels = np.repeat([0, 1, 2], [500, 300, 7])
    images = images_with(labels)
    chosen = subset(images, 100, 1)
    assert Counter(chosen.labels.tolist()) == {0: 62, 1: 37, 2: 1}
    assert len(set(chosen.indices)) == 100
    assert chosen.indices == subset(images, 100, 1).indices
    assert chosen.indices != subset(images, 100, 2).indices
    assert Counter(subset(images, 3, 0).labels.tolist()) == {0: 1, 1: 1, 2: 1}
    assert subset(images, 807, 0).indices == tuple(range(807))
    order = np.argsort(hash_indices(5, 807))  # the first of each class by their hashes
    assert set(subset(images, 10, 5).indices) == {
        *order[labels[order] == 0][:6].tolist(),
        *order[labels[order] == 1][:3].tolist(),
        *order[labels[order] == 2][:1].tolist(),
    }
    labels = np.array([0] * 10 + [2] * 10)  # none of class 1
    assert Counter(subset(images_with(labels), 8, 0).labels.tolist()) == {0: 4, 2: 4}
    converted(trees, tmp_path, "--subset", "6")
    assert json.loads((tmp_path / "train.beton.json").read_text())["num_samples"] == 6
    assert json.loads((tmp_path / "validation.beton.json").read_text())["num_samples"] == 7


def test_corrupt_images_stop_or_are_left_out_counted_and_named(trees, tmp_path, capsys):
    shutil.copytree(trees["imagenet"], tmp_path / "tree")
    tree = {"imagenet": tmp_path / "tree"}
    bad = tmp_path / "tree/train/n02110185/n02110185_1.JPEG"
    bad.write_bytes(bad.read_bytes()[:500])
    out = tmp_path / "out"
    assert converted(tree, out) == 2
    assert f"{bad}: cannot be decoded" in capsys.readouterr().err
    assert files(out) == set()
    assert converted(tree, out, "--corrupt", "skip") == 0
    assert "11 images in 3 classes" in capsys.readouterr().out.replace("; 1 skipped", "")
    manifest = json.loads((out / "train.beton.json").read_text())
    assert manifest["samples_per_class"] == [5, 3, 3]
    assert [str(bad) in line for line in manifest["skipped"]] == [True]
    labels = images_of(out / "train.beton").labels
    assert labels.tolist() == [0] * 5 + [1] * 3 + [2] * 3


def test_image_that_cannot_be_read_is_named_or_left_out_like_a_corrupt_one(trees, tmp_path, capsys):
    shutil.copytree(trees["imagenet"], tmp_path / "tree")
    gone = tmp_path / "tree/train/n02110185/gone.JPEG"
    gone.symlink_to(tmp_path / "nowhere.JPEG")
    out = tmp_path / "out"
    assert converted({"imagenet": tmp_path / "tree"}, out) == 2
    assert f"data.beton: {gone}: cannot be read (No such file or directory)\n" == capsys.readouterr().err
    assert converted({"imagenet": tmp_path / "tree"}, out, "--corrupt", "skip") == 0
    assert json.loads((out / "train.beton.json").read_text())["skipped"][0].startswith(f"{gone}: ")


@pytest.mark.slow
def test_full_disk_leaves_nothing_and_says_so(trees, tmp_path, run_python):
    arguments = ["imagenet", "--path", str(trees["imagenet"]), "--out", str(tmp_path / "out")]
    arguments += ["--processes", "1"]
    # A limit on the size of files makes write() fail as a full disk does, in the middle of the file.
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
from data.beton import main
print(main({arguments!r}))
"""
    ended = run_python(code)
    assert ended.stdout == "2\n", ended.stderr
    assert "train.beton: cannot be written (File too large); nothing is left of it" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert files(tmp_path / "out") == set()


def test_what_a_killed_writer_left_is_removed(trees, tmp_path):
    (tmp_path / ".train.beton.0123.tmp").write_text("half")
    (tmp_path / ".train.beton.0123.tmp.json").write_text("half")
    converted(trees, tmp_path)
    assert files(tmp_path) == WRITTEN


@pytest.mark.parametrize("before", ["train.beton.json", "train.beton"])
def test_conversion_killed_before_a_file_has_its_name_goes_on(trees, tmp_path, monkeypatch, before):
    replace = os.replace

    def killed(source, target):
        if os.path.basename(target) == before:
            raise KeyboardInterrupt
        replace(source, target)

    for more in ([], ["--jpeg-quality", "50", "--force"]):  # first over nothing, then over another file
        monkeypatch.setattr(os, "replace", killed)
        assert converted(trees, tmp_path, *more) == 130
        monkeypatch.setattr(os, "replace", replace)
        assert converted(trees, tmp_path, *[part for part in more if part != "--force"]) == 0
        assert images_of(tmp_path / "train.beton").class_names == WORDNET_IDS
        (tmp_path / "validation.beton").unlink()


def test_two_conversions_into_a_folder_do_not_mix(trees, tmp_path, capsys):
    lock = FileLock(tmp_path / "data.beton.lock")
    lock.acquire()
    other = threading.Thread(target=lambda: ended.append(converted(trees, tmp_path, "--jpeg-quality", "50")))
    ended: list[int] = []
    other.start()
    deadline = time.monotonic() + 30
    while "waiting for another conversion into" not in capsys.readouterr().err:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first = tmp_path / "first"
    converted(trees, first)
    for path in first.iterdir():
        if path.suffix != ".lock":
            path.rename(tmp_path / path.name)
    lock.release()
    other.join()
    assert ended == [2]
    assert "train.beton exists and was made otherwise" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_end_with_the_conversion_that_started_them(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        for number in range(200):
            Image.effect_noise((300, 300), 90).convert("RGB").save(tmp_path / split / "a" / f"{number}.png")
    command = [
        sys.executable,
        "-m",
        "data.beton",
        "imagenet_small",
        "--path",
        str(tmp_path),
        "--processes",
        "2",
    ]
    conversion = subprocess.Popen([*command, "--out", str(tmp_path / "out")])
    children = Path(f"/proc/{conversion.pid}/task/{conversion.pid}/children")
    while not list((tmp_path / "out").glob(".train.beton*.tmp")) or len(children.read_text().split()) < 3:
        assert conversion.poll() is None
        time.sleep(0.01)
    time.sleep(1)
    pids = children.read_text().split()
    conversion.kill()
    conversion.wait()
    deadline = time.monotonic() + 30
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_half_of_the_images_are_raw_in_proportion_mode_however_many_there_are():
    images = ArrayImages("x", ("a",), "", lambda: (np.zeros((200, 8, 8, 3), np.uint8), np.zeros(200, int)))
    kinds = [encode(images, index, WriteSettings("proportion")).jpeg for index in range(200)]
    assert kinds == [bool(value & np.uint64(1)) for value in hash_indices(0, 200)]
    assert 80 < sum(kinds) < 120


@pytest.mark.parametrize(
    ("match", "more"),
    [
        ("--max-resolution: must be from 8", ["--max-resolution", "0"]),
        ("--jpeg-quality: must be from 1 to 100", ["--jpeg-quality", "101"]),
        ("--processes: must be 1 or more", ["--processes", "0"]),
        ("--seed: must be from 0 to 18446744073709551615, got -1", ["--subset", "4", "--seed", "-1"]),
        ("--val-path: is empty; give a path", ["--val-path", ""]),
        ("--subset: must be from 3, the number of classes, to the 12 images", ["--subset", "2"]),
    ],
)
def test_settings_that_make_no_sense_end_with_code_2_in_one_line(trees, tmp_path, capsys, match, more):
    assert converted(trees, tmp_path / "out", *more) == 2
    error = capsys.readouterr().err
    assert match in error
    assert error.count("\n") == 1
    assert files(tmp_path / "out") == set()


def test_missing_validation_folder_is_called_by_the_commands_own_name(trees, tmp_path, capsys):
    arguments = ["imagenet", "--path", str(trees["imagenet"] / "train"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--val-path", str(tmp_path / "none")]) == 2
    assert f"--val-path: no folder at {tmp_path}/none" in capsys.readouterr().err


def test_image_larger_than_a_page_is_named(tmp_path, capsys):
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.new("RGB", (2000, 1500)).save(tmp_path / split / "a" / "big.png")
    arguments = [
        "imagenet_small",
        "--path",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--processes",
        "1",
    ]
    assert main([*arguments, "--write-mode", "raw"]) == 2
    assert "big.png: takes 9000000 bytes, at most 8388608 fit" in capsys.readouterr().err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "python -m data.beton imagenet --path" in capsys.readouterr().out
