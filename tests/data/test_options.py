"""Colour, grey, sizes that grow, number formats and layouts, on the way to the network."""

import numpy as np
import pytest
import torch

from data import DataError, LoadingOptions, open_data
from data.augment import Augmentation, training_views
from data.batches import on_device

SIZE = 24


def opened(photos, *, seed=3, batch_size=8, **options):
    return open_data(
        "ffcv", batch_size=batch_size, image_size=SIZE, seed=seed, options=LoadingOptions(**options), **photos
    )


def first(data, epoch=0):
    return next(data.train.epoch(epoch))[0]


def pixels(data, images):
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.preprocessing.mean, data.preprocessing.std))
    return images * std + mean


def test_grey_images_have_equal_channels_and_the_same_crops(photos):
    plain = opened(photos)
    grey = opened(photos, grey_probability=1.0)
    red, green, blue = pixels(grey, first(grey)).unbind(1)
    assert (red - green).abs().max() < 0.01
    assert (red - blue).abs().max() < 0.01
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    expected = (pixels(plain, first(plain)) * weights).sum(1)
    assert (red - expected).abs().max() <= 0.51


def test_share_of_grey_images_is_the_probability():
    sizes = np.full(4000, 50)
    views = training_views(Augmentation(grey_probability=0.3), 1, np.arange(4000), sizes, sizes)
    assert abs((views.colors[:, 2] == 0).mean() - 0.3) < 0.03
    assert (views.colors[:, :2] == 1).all()


def test_jitter_stays_in_its_range_and_changes_no_crop_and_no_flip():
    sizes = np.full(4000, 50)
    plain, varied = (
        training_views(Augmentation(color_jitter=j), 1, np.arange(4000), sizes, sizes) for j in (0, 0.4)
    )
    assert (plain.colors == 1).all()
    assert 0.6 <= varied.colors.min() < 0.61
    assert 1.39 < varied.colors.max() <= 1.4
    assert np.corrcoef(varied.colors.T)[0, 1] < 0.1
    assert (plain.crops == varied.crops).all()
    assert (plain.flips == varied.flips).all()


@pytest.mark.parametrize("factors", [(1.3, 1, 1), (1, 0.6, 1), (1, 1, 0), (0.7, 1.4, 1.2)])
def test_compiled_recolouring_is_numpys_to_the_last_bit(factors):
    from data.ffcv_setup import require_ffcv

    require_ffcv()
    from data.kernels import recolor
    from data.pixels import recolored

    image = np.random.default_rng(0).integers(0, 256, (31, 31, 3), np.uint8)
    compiled = image.copy()
    recolor(compiled, *(np.float32(factor) for factor in factors))
    assert (compiled == recolored(image, *(np.float32(factor) for factor in factors))).all()
    assert (compiled != image).any()


def test_recolouring_is_what_the_names_say():
    from data.pixels import recolored

    one = np.float32(1)
    image = np.random.default_rng(0).integers(60, 120, (9, 9, 3), np.uint8)
    brighter = recolored(image, np.float32(2), one, one)
    assert (brighter == image * 2).all()
    flat = recolored(image, one, np.float32(0), one)
    assert (flat == flat[0, 0, 0]).all()
    assert abs(flat.mean() - (image @ [0.299, 0.587, 0.114]).mean()) < 1
    assert (recolored(image, one, one, one) == image).all()


def test_sizes_grow_to_the_full_one_and_validation_keeps_it(photos):
    options = LoadingOptions(first_size=128, resize_epochs=4)
    assert [options.training_size(epoch, 224) for epoch in range(6)] == [128, 160, 192, 192, 224, 224]
    data = opened(photos, first_size=8, resize_epochs=2)
    sizes = [first(data, epoch).shape[-1] for epoch in range(4)]
    assert sizes[0] == 8
    assert sizes == sorted(sizes)
    assert sizes[2:] == [24, 24]
    assert next(data.validation.epoch(0))[0].shape[-1] == 24


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_other_formats_hold_the_rounded_numbers_in_the_layout_asked_for(photos, dtype, channels_last):
    exact = first(opened(photos, color_jitter=0.3))
    images = first(opened(photos, color_jitter=0.3, dtype=dtype, channels_last=channels_last))
    assert torch.equal(images, exact.to(getattr(torch, dtype)))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert images.is_contiguous(memory_format=layout)


def test_options_that_make_no_sense_are_refused(photos):
    for match, options in (
        ("loader: must be ffcv or torch, got 'x'", {"loader": "x"}),
        ("image_dtype: must be float32, float16 or bfloat16, got 'int8'", {"dtype": "int8"}),
        ("crop_area: must be above 0 and at most 1, got 0", {"crop_area": 0.0}),
        ("color_jitter: must be at least 0 and below 1, got 1", {"color_jitter": 1}),
        ("grey_probability: must be from 0 to 1, got 2", {"grey_probability": 2}),
        ("first_size and resize_epochs go together", {"first_size": 16}),
        ("resize_epochs: must be 1 or more, got 0", {"first_size": 16, "resize_epochs": 0}),
        ("first_size: must be from 8 to the image size of 24", {"first_size": 25, "resize_epochs": 1}),
    ):
        with pytest.raises(DataError, match=match):
            opened(photos, **options)
    with pytest.raises(DataError, match="color_jitter: dataset digits is not augmented"):
        open_data("digits", batch_size=8, options=LoadingOptions(color_jitter=0.1))


def test_batches_reach_a_device_in_order_and_leaving_early_closes_their_source():
    closed = []

    def source():
        try:
            for number in range(3):
                yield torch.full((2,), float(number)), torch.tensor([number])
        finally:
            closed.append(True)

    assert [int(labels) for _, labels in on_device(source(), torch.device("cpu"))] == [0, 1, 2]
    moved = on_device(source(), torch.device("meta"))
    assert next(moved)[0].device.type == "meta"
    abandoned = on_device(source(), None)
    next(abandoned)
    abandoned.close()
    assert len(closed) >= 2
