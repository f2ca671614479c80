"""Training crops and flips of the ffcv data set: what they do, and what they depend on."""

import numpy as np
import pytest
import torch

from data import open_data
from data.augment import Augmentation, training_views, uniform
from data.beton_writer import write_beton
from data.order import AUGMENTATION, epoch_key, mix, permutation

SIZE = 24


def pixels_by_index(data, seed, epoch):
    """Training images of an epoch, by their position in the file."""
    images = torch.cat([images for images, _ in data.train.epoch(epoch)])
    order = permutation(seed, epoch, data.info.num_train)[: len(images)]
    return dict(zip(order.tolist(), images, strict=True))


@pytest.mark.parametrize("change", [{"loader_threads": 2}, {"loader_threads": 5}, {"batch_size": 1}])
def test_threads_and_batch_size_change_no_pixel(photos, change):
    settings = {"batch_size": 8, "image_size": SIZE, "seed": 3, **photos}
    one = pixels_by_index(open_data("ffcv", **settings), 3, 1)
    other = pixels_by_index(open_data("ffcv", **settings | change), 3, 1)
    shared = one.keys() & other.keys()
    assert len(shared) >= 32
    assert all(torch.equal(one[index], other[index]) for index in shared)


def test_an_image_is_cropped_anew_each_epoch_and_for_each_seed(photos):
    settings = {"batch_size": 37, "image_size": SIZE, **photos}
    seen = [
        pixels_by_index(open_data("ffcv", **settings, seed=seed), seed, epoch)[7]
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_each_image_is_its_own_crop_and_flip_as_opencv_makes_them(tmp_path):
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    stored = [rng.integers(0, 256, (50, 61, 3), np.uint8) for _ in range(20)]
    path = write_beton(tmp_path / "noise.beton", [(image, 0) for image in stored], ["noise"])
    data = open_data("ffcv", batch_size=20, image_size=SIZE, seed=6, dataset_path=path, dataset_val_path=path)
    shown = pixels_by_index(data, seed=6, epoch=2)
    key, sizes = epoch_key(6, 2, AUGMENTATION), np.ones(20, np.int64)
    views = training_views(Augmentation(), key, np.arange(20), 50 * sizes, 61 * sizes)
    for index, image in enumerate(stored):
        top, left, height, width = views.crops[index]
        expected = cv2.resize(
            image[top : top + height, left : left + width], (SIZE, SIZE), interpolation=cv2.INTER_AREA
        ).astype(float)
        if views.flips[index]:
            expected = expected[:, ::-1]
        mean, std = np.array(data.preprocessing.mean), np.array(data.preprocessing.std)
        values = shown[index].permute(1, 2, 0).numpy() * std + mean
        assert abs(values - expected).max() <= 1.01  # OpenCV versions may round differently
    assert 4 <= views.flips.sum() <= 16  # neither all nor none of a batch


def crops_of(height, width, count=4000, smallest=0.08):
    sizes = np.ones(count, np.int64)
    return training_views(Augmentation(smallest), 11, np.arange(count), height * sizes, width * sizes).crops


def test_crops_cover_8_to_100_percent_in_every_shape_from_3_4_to_4_3():
    crops = crops_of(300, 400)
    top, left, height, width = crops.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 300).all()
    assert (left + width <= 400).all()
    area, aspect = height * width / (300 * 400), width / height
    assert 0.079 < area.min() < 0.09
    assert area.max() > 0.9
    assert 0.73 < aspect.min() < 0.76
    assert 1.31 < aspect.max() < 1.36
    assert abs(np.median(left / (400 - width + 1)) - 0.5) < 0.03
    _, _, height, width = crops_of(500, 500).T  # tall and wide ones fit into a square equally well
    assert abs(np.log(width / height).mean()) < 0.01


def test_smallest_crop_is_what_was_asked_for():
    _, _, height, width = crops_of(300, 400, smallest=0.5).T
    assert 0.49 < (height * width).min() / (300 * 400) < 0.52


def test_image_too_long_for_any_crop_gets_the_central_one():
    assert crops_of(10, 1000, 1).tolist() == [[0, (1000 - 13) // 2, 10, 13]]
    assert crops_of(1000, 9, 1).tolist() == [[(1000 - 12) // 2, 0, 12, 9]]


def test_random_numbers_are_hashes_of_key_index_and_draw():
    numbers = uniform(5, np.array([0, 7, 2**31]), 3)
    for row, index in enumerate((0, 7, 2**31)):
        image_key = mix((index ^ 5) + 0x9E3779B97F4A7C15)
        expected = [(mix((draw ^ image_key) + 0x9E3779B97F4A7C15) >> 11) / 2**53 for draw in range(3)]
        assert numbers[row].tolist() == expected


@pytest.mark.slow
def test_validation_pixels_are_those_of_ffcvs_own_pipeline(photos, tmp_path, run_python):
    code = f"""
import numpy as np
from ffcv.loader import Loader, OrderOption
from ffcv.fields.rgb_image import CenterCropRGBImageDecoder
from ffcv.fields.basics import IntDecoder
from ffcv.transforms import NormalizeImage, ToTensor, ToTorchImage
mean, std = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
image = [CenterCropRGBImageDecoder(({SIZE}, {SIZE}), 224 / 256), NormalizeImage(mean, std, np.float32),
         ToTensor(), ToTorchImage(channels_last=False)]
loader = Loader({photos["dataset_val_path"]!r}, batch_size=11, num_workers=1, seed=0,
                order=OrderOption.SEQUENTIAL, drop_last=False,
                pipelines={{"image": image, "label": [IntDecoder(), ToTensor()]}})
images, labels = next(iter(loader))
np.savez({str(tmp_path / "ffcv.npz")!r}, images=images.numpy(), labels=labels.numpy()[:, 0])
"""
    run_python(code)
    reference = np.load(tmp_path / "ffcv.npz")
    images, labels = next(open_data("ffcv", batch_size=11, image_size=SIZE, **photos).validation.epoch(0))
    assert np.array_equal(images.numpy(), reference["images"])
    assert labels.tolist() == reference["labels"].tolist()
