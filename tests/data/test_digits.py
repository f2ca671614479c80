import hashlib
import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from data import check_data, open_data


def all_images(loader, epoch=0):
    batches = list(loader.epoch(epoch))
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def enlarged_by_hand(image, size):
    """Bilinear with half-pixel centres, written out."""
    position = np.clip((np.arange(size) + 0.5) * 8 / size - 0.5, 0, 7)
    low = np.minimum(position.astype(int), 6)
    weight = position - low
    rows = image[low] * (1 - weight)[:, None] + image[low + 1] * weight[:, None]
    return rows[:, low] * (1 - weight) + rows[:, low + 1] * weight


def test_info_tells_classes_sizes_and_files():
    info = check_data("digits")
    assert info.class_names == tuple("0123456789")
    assert (info.num_classes, info.image_size) == (10, 32)
    assert info.num_train + info.num_validation == 1797
    assert abs(info.num_validation - 1797 / 5) <= 5


def test_every_digit_is_in_exactly_one_split():
    data = open_data("digits", batch_size=1)
    hashes = {}
    for split in ("train", "validation"):
        images, _ = all_images(getattr(data, split))
        hashes[split] = [hashlib.sha256(image.numpy().tobytes()).digest() for image in images]
    assert len(set(hashes["train"])) == len(hashes["train"]) == data.info.num_train
    assert len(set(hashes["validation"])) == len(hashes["validation"]) == data.info.num_validation
    assert not set(hashes["train"]) & set(hashes["validation"])


@pytest.mark.parametrize("size", [32, 13])
def test_pixels_are_scikit_learns_enlarged_and_normalised_by_hand(size):
    data = open_data("digits", batch_size=64, image_size=size)
    images, labels = all_images(data.validation)
    mean, std = data.preprocessing.mean[0], data.preprocessing.std[0]
    bunch = load_digits()
    by_hand = np.stack([np.rint(enlarged_by_hand(image * 255 / 16, size)) for image in bunch.images])
    stored = np.rint(images.numpy() * std + mean)
    assert (stored[:, 0] == stored[:, 1]).all()
    assert (stored[:, 0] == stored[:, 2]).all()
    for image, label in zip(stored[:, 0], labels, strict=True):
        distance = abs(by_hand - image).max(axis=(1, 2))
        assert distance.min() <= 1  # a tie at .5 may round either way
        assert bunch.target[distance.argmin()] == label
    pixels = np.rint(images[:, 0].numpy() * std + mean)
    np.testing.assert_allclose(images[:, 0].numpy(), (pixels - mean) / std, rtol=1e-6, atol=1e-6)


def test_training_images_have_mean_0_and_standard_deviation_1():
    images, _ = all_images(open_data("digits", batch_size=1).train)
    assert abs(images.mean()) < 1e-4
    assert abs(images.std() - 1) < 1e-4


def test_classes_have_the_same_share_in_both_splits():
    data = open_data("digits", batch_size=1)
    shares = [
        np.bincount(all_images(s)[1], minlength=10) / s.num_samples for s in (data.train, data.validation)
    ]
    assert abs(shares[0] - shares[1]).max() < 0.003


def test_training_shows_the_stored_images_without_augmentation():
    data = open_data("digits", batch_size=1438)
    first, second = (all_images(data.train, epoch)[0] for epoch in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first.flatten(1).sum(1).sort().values, second.flatten(1).sum(1).sort().values)


@pytest.mark.slow
def test_first_use_by_three_processes_at_once_writes_one_good_sample(tmp_path):
    code = "import data; d = data.check_data('digits', image_size=16); print(d.num_train)"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "RECURRENT_VISION_CACHE": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(3)
    ]
    assert [process.communicate(timeout=120)[0] for process in started] == ["1438\n"] * 3
    files = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")}
    betons = {"digits-16px-train.beton", "digits-16px-validation.beton"}
    assert files == betons | {f"{name}.json" for name in betons}
    for name in betons:
        manifest = json.loads((tmp_path / f"{name}.json").read_text())
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == manifest["sha256"]


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        flip_a_byte,
        lambda path: path.unlink(),
        lambda path: path.with_name(path.name + ".json").write_text('{"version": 1'),
    ],
    ids=["torn", "one byte changed", "deleted", "manifest torn"],
)
def test_damaged_sample_is_written_again_with_a_warning(damage, tmp_path, monkeypatch):
    monkeypatch.setenv("RECURRENT_VISION_CACHE", str(tmp_path))
    path = tmp_path / "digits-8px-train.beton"
    check_data("digits", image_size=8)
    good = path.read_bytes()
    damage(path)
    with pytest.warns(UserWarning, match="digits-8px-train.beton .*; writing it again"):
        check_data("digits", image_size=8)
    assert path.read_bytes() == good
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_data("digits", image_size=8)


def test_cache_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RECURRENT_VISION_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ValueError, match="file/cache.*set RECURRENT_VISION_CACHE"):
        check_data("digits")
