"""Every keyword on a tree in its layout, through ffcv's own writer and the real loader."""

import io
import json
import os
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from data import DATASETS, DataError, LoadingOptions, check_data, open_data
from data.images import decode

WORDNET_IDS = ("n01440764", "n02110185", "n02123045")
KEYWORDS = sorted(set(DATASETS) - {"digits", "ffcv"})


def shown(loader, epoch=0):
    images, labels = (torch.cat(parts) for parts in zip(*loader.epoch(epoch), strict=True))
    return images, labels


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_every_keyword_trains_and_validates_on_its_own_layout(trees, keyword):
    size = 32 if keyword.startswith("cifar") else 24
    data = open_data(keyword, dataset_path=trees[keyword], batch_size=4, image_size=size)
    images, labels = shown(data.train)
    assert images.shape == (data.info.num_train // 4 * 4, 3, size, size)
    assert set(labels.tolist()) <= set(range(data.info.num_classes))
    images, labels = shown(data.validation)
    assert len(labels) == data.info.num_validation
    classes, counts = {
        "cifar10": (tuple(f"class {i}" for i in range(10)), (20, 4)),
        "cifar100": (tuple(f"class {i}" for i in range(100)), (4, 4)),
    }.get(keyword, (WORDNET_IDS, (12, 7)))
    assert data.info.class_names == classes
    assert (data.info.num_train, data.info.num_validation) == counts


def test_folders_and_kaggles_layout_of_the_same_images_are_the_same_data_set(trees):
    one, other = (
        open_data(keyword, dataset_path=trees[keyword], batch_size=4, image_size=24, seed=2)
        for keyword in ("imagenet", "imagenet_kaggle")
    )
    for a, b in zip(shown(one.train), shown(other.train), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(shown(one.validation), shown(other.validation), strict=True):
        assert torch.equal(a, b)


def test_validation_comes_in_the_order_of_the_files_with_the_folders_class(trees):
    data = open_data("imagenet_small", dataset_path=trees["imagenet_small"], batch_size=4, image_size=24)
    _, labels = shown(data.validation)
    assert labels.tolist() == [0, 0, 1, 1, 1, 2, 2]


def test_both_paths_of_cifar_may_be_the_one_folder_that_holds_both_splits(trees, tmp_path):
    folder = trees["cifar10"]
    data = open_data("cifar10", dataset_path=folder, dataset_val_path=folder, batch_size=4)
    assert (data.info.num_train, data.info.num_validation) == (20, 4)
    with pytest.raises(DataError, match="dataset_val_path: .* would not be used"):
        check_data("cifar10", dataset_path=folder, dataset_val_path=tmp_path, image_size=32)


def test_cifar_pixels_are_those_of_the_file_normalised(trees):
    data = open_data("cifar10", dataset_path=trees["cifar10"], batch_size=4)
    images, labels = shown(data.validation)
    with (trees["cifar10"] / "test_batch").open("rb") as file:
        content = pickle.load(file)
    pixels = content["data"].reshape(4, 3, 32, 32)
    mean, std = (np.array(v)[:, None, None] for v in (data.preprocessing.mean, data.preprocessing.std))
    np.testing.assert_allclose(images.numpy(), (pixels - mean) / std, atol=1e-5)
    assert labels.tolist() == content["labels"]


def test_the_two_folders_can_be_given_apart(trees):
    root = trees["imagenet"]
    apart = check_data("imagenet", dataset_path=root / "train", dataset_val_path=root / "val")
    together = check_data("imagenet", dataset_path=root)
    assert apart == together


def test_second_use_converts_nothing_and_a_new_file_converts_again(trees, tmp_path):
    root = tmp_path / "tree"
    shutil.copytree(trees["imagenet"], root)
    info = check_data("imagenet", dataset_path=root)
    written = os.stat(info.train_path).st_mtime_ns
    check_data("imagenet", dataset_path=root)
    assert os.stat(info.train_path).st_mtime_ns == written
    shutil.copy(root / "train/n01440764/n01440764_0.JPEG", root / "train/n01440764/more.JPEG")
    with pytest.warns(UserWarning, match="train.beton is older than .*; writing it again"):
        assert check_data("imagenet", dataset_path=root).num_train == info.num_train + 1


def test_file_that_was_overwritten_is_converted_again(trees, tmp_path):
    root = tmp_path / "tree"
    shutil.copytree(trees["imagenet"], root)
    dataset = {"dataset": "imagenet", "dataset_path": root, "batch_size": 1, "image_size": 24}
    before, _ = next(open_data(**dataset).validation.epoch(0))
    first = root / "val/n01440764/n01440764_0.JPEG"
    folder = first.parent.stat().st_mtime_ns
    first.write_bytes((root / "val/n02123045/n02123045_0.JPEG").read_bytes())
    assert first.parent.stat().st_mtime_ns == folder
    with pytest.warns(UserWarning, match="validation.beton is older than"):
        after, _ = next(open_data(**dataset).validation.epoch(0))
    assert not torch.equal(before, after)


@pytest.mark.parametrize("loader", ["ffcv", "torch"])
def test_another_order_of_kaggles_classes_renumbers_both_splits(trees, tmp_path, loader):
    root = tmp_path / "kaggle"
    shutil.copytree(trees["imagenet_kaggle"], root)
    dataset = {"dataset": "imagenet_kaggle", "dataset_path": root, "batch_size": 12, "image_size": 16}
    dataset["options"] = LoadingOptions(loader=loader)
    assert shown(open_data(**dataset).train)[1].bincount().tolist() == [5, 4, 3]
    index = {str(i): [wnid, "name"] for i, wnid in enumerate(reversed(WORDNET_IDS))}
    (root / "imagenet_class_index.json").write_text(json.dumps(index))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that are written again
        data = open_data(**dataset)
    assert data.info.class_names == tuple(reversed(WORDNET_IDS))
    assert shown(data.train)[1].bincount().tolist() == [3, 4, 5]
    assert shown(data.validation)[1].tolist() == [2, 2, 1, 1, 1, 0, 0]


TORCH = LoadingOptions(loader="torch")


def test_folders_inside_a_class_count_but_for_hidden_ones_and_links_that_lead_back(tree, tmp_path):
    before = check_data("imagenet", dataset_path=tree, options=TORCH).num_train
    folder, image = tree / "train/n01440764", tree / "train/n01440764/n01440764_0.JPEG"
    for inner in (folder / "inner", folder / ".ipynb_checkpoints", tmp_path / "elsewhere"):
        inner.mkdir()
        shutil.copy(image, inner / "copy.JPEG")
    shutil.copy(image, folder / ".ipynb_checkpoints" / "another.JPEG")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "inner/back").symlink_to(folder)
    assert check_data("imagenet", dataset_path=tree, options=TORCH).num_train == before + 2


def test_names_that_are_not_utf8_are_no_trouble(tree):
    for split in ("train", "val"):
        os.rename(tree / split / "n01440764", os.fsencode(tree / split) + b"/caf\xe9")
    assert check_data("imagenet_small", dataset_path=tree).class_names[0] == "caf\udce9"


def test_folders_that_cannot_be_read_are_named(tree, monkeypatch):
    refused("dataset_path: /x+ cannot be read .File name too long", dataset_path="/" + "x" * 300)
    paths = {"dataset_path": "/" + "x" * 300, "dataset_val_path": "x"}
    refused("dataset_path: .* cannot be read: File name too long", "ffcv", **paths)
    refused("dataset_path: no folder at .*/~nobody.here", dataset_path="~nobody.here")
    scandir = os.scandir

    def locked(path):
        if str(path).endswith("n02110185"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    refused("dataset_path: .*train/n02110185 cannot be read .Permission denied", dataset_path=tree)


def refused(match, dataset="imagenet", **arguments):
    with pytest.raises(DataError, match=match) as caught:
        check_data(dataset, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_missing_paths_are_named(keyword, tmp_path):
    refused(f"dataset_path: not given; dataset {keyword} needs", keyword)
    refused(f"dataset_path: no folder at {tmp_path}/none", keyword, dataset_path=tmp_path / "none")
    refused("dataset_path: (no|.* has no) (file|folder) ", keyword, dataset_path=tmp_path)


@pytest.fixture
def tree(trees, tmp_path):
    """An ImageNet folder to be damaged."""
    shutil.copytree(trees["imagenet"], tmp_path / "tree")
    return tmp_path / "tree"


def test_missing_paths_are_named_for_folders_without_train(tmp_path):
    refused("has no folder train; give a folder with train and val", dataset_path=tmp_path)


def test_empty_class_folder_and_other_names_are_named(tree):
    (tree / "train" / "n09999999").mkdir()
    refused("class folder .*train/n09999999 has no images", dataset_path=tree)
    (tree / "train" / "n09999999").rename(tree / "train" / "misc")
    refused("train/misc is not called by a WordNet id", dataset_path=tree)


def test_class_sets_that_differ_are_named(tree):
    shutil.rmtree(tree / "val" / "n02110185")
    refused("class n02110185 of the training images is not among the validation", dataset_path=tree)
    (tree / "val" / "n02110185").mkdir()
    (tree / "val" / "n00000001").mkdir()
    for wnid in ("n02110185", "n00000001"):
        shutil.copy(tree / "train/n01440764/n01440764_0.JPEG", tree / "val" / wnid)
    refused("class n00000001 of the validation images is not among the training", dataset_path=tree)


def test_corrupt_image_is_named_and_leaves_nothing_in_the_cache(tree, cache):
    before = {path.name for path in cache.iterdir()}
    bad = tree / "train/n02110185/n02110185_1.JPEG"
    bad.write_bytes(bad.read_bytes()[:400])
    refused(f"dataset_path: {bad}: cannot be decoded", dataset_path=tree)
    bad.write_text("no image")
    refused(f"dataset_path: {bad}: cannot be decoded .not a known image format", dataset_path=tree)
    left = {path.name for path in cache.iterdir()} - before
    assert not [name for name in left if not name.endswith(".lock")]


def test_files_that_are_no_images_and_grey_ones_are_no_trouble(tree):
    before = check_data("imagenet", dataset_path=tree)
    (tree / "train/n01440764/notes.txt").write_text("hello")
    Image.new("L", (30, 40), 200).save(tree / "train/n01440764/zgrey.png")
    Image.new("CMYK", (30, 40)).save(tree / "train/n01440764/zz.jpg")
    with pytest.warns(UserWarning, match="is older than"):
        data = open_data("imagenet", dataset_path=tree, batch_size=1, image_size=16)
    assert data.info.num_train == before.num_train + 2
    shown(data.train)


def test_16_bits_are_shown_by_their_upper_8_and_32_bits_are_refused():
    grey = np.arange(0, 65536, 1111, dtype=np.uint16).reshape(1, -1)
    for kind, dtype in (("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")):
        file = io.BytesIO()
        Image.fromarray(grey.astype(dtype)).save(file, kind)
        pixels = decode(file.getvalue(), "x")
        assert pixels.shape == (1, 59, 3)
        assert (pixels == grey[:, :, None] // 256).all()
    file = io.BytesIO()
    Image.fromarray(grey.astype(np.float32) / 65535).save(file, "TIFF")
    with pytest.raises(DataError, match=r"^x: cannot be decoded .its pixels have 32 bits"):
        decode(file.getvalue(), "x")


def test_kaggles_labels_must_fit_its_files(trees, tmp_path):
    root = tmp_path / "kaggle"
    shutil.copytree(trees["imagenet_kaggle"], root)
    labels = root / "ILSVRC2012_val_labels.json"
    known = json.loads(labels.read_text())
    first = sorted(known)[0]
    labels.write_text(json.dumps(known | {first: "n00000000"}))
    refused(f"gives {first} class 'n00000000', which is none", "imagenet_kaggle", dataset_path=root)
    del known[first]
    labels.write_text(json.dumps(known))
    refused(f"gives {first} no class", "imagenet_kaggle", dataset_path=root)
    labels.unlink()
    refused("no file at .*val_labels.json", "imagenet_kaggle", dataset_path=root)


def test_cifar_files_can_run_no_code_and_labels_are_checked(trees, tmp_path):
    root = tmp_path / "cifar"
    shutil.copytree(trees["cifar10"], root)
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    (root / "test_batch").write_bytes(pickle.dumps({"data": Evil()}))
    refused(
        "test_batch is not a CIFAR file, or is damaged .it asks for posix.mkdir", "cifar10", dataset_path=root
    )
    assert not marker.exists()
    rows = np.zeros((1, 3072), np.uint8)
    (root / "test_batch").write_bytes(pickle.dumps({"data": rows, "labels": [10]}))
    refused("test_batch has label 10 at image 0", "cifar10", dataset_path=root)
    (root / "test_batch").write_bytes(pickle.dumps({"data": rows, "labels": [1, 2]}))
    refused("test_batch does not hold rows of 3072 bytes", "cifar10", dataset_path=root)
    (root / "test_batch").unlink()
    refused("no file at .*test_batch", "cifar10", dataset_path=root)
    refused(
        "dataset_val_path: x would not be used",
        "cifar10",
        dataset_path=trees["cifar10"],
        dataset_val_path="x",
    )


def test_torch_loader_reads_folders_without_converting(tree, cache):
    before = {path.name for path in cache.iterdir()}
    info = check_data("imagenet", dataset_path=tree, options=LoadingOptions(loader="torch"))
    assert info.train_path == str(tree / "train")
    assert {path.name for path in cache.iterdir()} == before
