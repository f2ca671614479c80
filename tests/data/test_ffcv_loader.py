import gc
import hashlib
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data import DataError, LoadingOptions, open_data
from data.beton_writer import write_beton
from tests.data.conftest import save_jpeg


def drawn(iterator):
    return list(iterator)


def same(batches, others):
    return len(batches) == len(others) and all(
        torch.equal(a, b)
        for pair, other in zip(batches, others, strict=True)
        for a, b in zip(pair, other, strict=True)
    )


def epoch_threads():
    from data.ffcv_loader import Epoch

    return [thread for thread in threading.enumerate() if isinstance(thread, Epoch)]


@pytest.fixture(params=["digits", "ffcv"])
def dataset(request, photos):
    """Keyword arguments of open_data for either data set."""
    if request.param == "digits":
        return {"dataset": "digits", "batch_size": 120}
    return {"dataset": "ffcv", "batch_size": 6, "image_size": 21, **photos}


def test_batches_are_contiguous_float32_images_and_int64_labels(photos):
    data = open_data("ffcv", batch_size=5, image_size=21, **photos)
    images, labels = next(data.train.epoch(0))
    assert images.shape == (5, 3, 21, 21)
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    assert labels.shape == (5,)
    assert labels.dtype == torch.int64


def test_lengths_drop_the_partial_batch_in_training_only(photos):
    data = open_data("ffcv", batch_size=5, image_size=21, **photos)  # 37 and 11 images
    assert (len(data.train), data.train.num_samples) == (7, 35)
    assert (len(data.validation), data.validation.num_samples) == (3, 11)
    assert [len(labels) for _, labels in data.train.epoch(0)] == [5] * 7
    assert [len(labels) for _, labels in data.validation.epoch(0)] == [5, 5, 1]


def test_batches_stay_valid_after_later_ones_are_drawn(dataset):
    data = open_data(**dataset)
    kept = drawn(data.train.epoch(0))
    copies = [(images.clone(), labels.clone()) for images, labels in data.train.epoch(0)]
    assert same(kept, copies)


def test_same_seed_gives_the_same_batches_after_opening_again(dataset):
    first = drawn(open_data(**dataset, seed=3).train.epoch(2))
    open_data(**dataset, seed=4)
    assert same(first, drawn(open_data(**dataset, seed=3).train.epoch(2)))


def test_other_seed_and_other_epoch_give_other_batches(dataset):
    data = open_data(**dataset, seed=3)
    first = drawn(data.train.epoch(0))
    assert not same(first, drawn(data.train.epoch(1)))
    assert not same(first, drawn(open_data(**dataset, seed=4).train.epoch(0)))


def test_another_process_draws_the_same_batches(dataset, run_python):
    code = f"""
import data, hashlib
digest = hashlib.sha256()
for images, labels in data.open_data(**{dataset!r}, seed=5).train.epoch(1):
    digest.update(images.numpy().tobytes() + labels.numpy().tobytes())
print(digest.hexdigest())
"""
    digest = hashlib.sha256()
    for images, labels in open_data(**dataset, seed=5).train.epoch(1):
        digest.update(images.numpy().tobytes() + labels.numpy().tobytes())
    assert run_python(code).stdout == digest.hexdigest() + "\n"


@pytest.mark.parametrize("world_size", [2, 3])
def test_batches_of_all_ranks_together_are_those_of_one_worker(dataset, world_size):
    alone = drawn(open_data(**dataset, seed=1).train.epoch(0))
    opened = [open_data(**dataset, seed=1, rank=r, world_size=world_size) for r in range(world_size)]
    ranks = [drawn(data.train.epoch(0)) for data in opened]
    together = [
        tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
        for batches in zip(*ranks, strict=True)
    ]
    assert same(alone, together)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_validation_shows_each_image_once_over_all_ranks(dataset, world_size):
    def rows(rank, world_size):
        batches = open_data(**dataset, rank=rank, world_size=world_size).validation.epoch(0)
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        return [(int(label), image.numpy().tobytes()) for image, label in zip(images, labels, strict=True)]

    alone = rows(0, 1)
    together = [row for rank in range(world_size) for row in rows(rank, world_size)]
    assert sorted(together) == sorted(alone)
    assert len(set(alone)) == len(alone)


def test_validation_is_the_same_in_every_epoch_and_for_every_seed(dataset):
    data = open_data(**dataset)
    first = drawn(data.validation.epoch(0))
    assert same(first, drawn(data.validation.epoch(7)))
    assert same(first, drawn(open_data(**dataset, seed=9).validation.epoch(0)))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_epoch_from_a_batch_on_is_the_tail_of_the_whole_epoch(dataset, split):
    loader = getattr(open_data(**dataset), split)
    whole = drawn(loader.epoch(3))
    for start in (0, 1, len(loader) - 1, len(loader)):
        assert same(drawn(loader.epoch(3, start_batch=start)), whole[start:])


def test_start_beyond_the_epoch_and_negative_epochs_are_refused_before_the_first_batch(dataset):
    loader = open_data(**dataset).train
    for start in (-1, len(loader) + 1):
        with pytest.raises(ValueError, match=f"start_batch must be 0 to {len(loader)}.*got {start}"):
            loader.epoch(0, start_batch=start)
    with pytest.raises(ValueError, match="epoch must be 0 or more, got -1"):
        loader.epoch(-1)


def test_opening_again_builds_no_loader_and_compiles_nothing(dataset, monkeypatch):
    from data import ffcv_loader
    from data.kernels import decode_images

    for split in ("train", "validation"):
        drawn(getattr(open_data(**dataset), split).epoch(0))
    compiled = len(decode_images.signatures)
    monkeypatch.setattr(ffcv_loader, "PreparedLoader", lambda pipeline: pytest.fail("a new loader was built"))
    again = open_data(**dataset, seed=8)
    for split in ("train", "validation"):
        drawn(getattr(again, split).epoch(1))
    assert len(decode_images.signatures) == compiled


def test_new_settings_and_new_files_compile_nothing_either(photos):
    from data.kernels import decode_images

    drawn(open_data("ffcv", batch_size=5, image_size=21, **photos).train.epoch(0))
    compiled = len(decode_images.signatures)
    drawn(open_data("ffcv", batch_size=7, image_size=18, loader_threads=2, **photos).train.epoch(0))
    drawn(open_data("digits", batch_size=50).train.epoch(0))
    assert len(decode_images.signatures) == compiled == 1


def test_cache_keeps_a_few_loaders_and_notices_a_rewritten_file(tmp_path):
    import numpy as np

    from data import ffcv_loader

    paths = {"dataset_path": str(tmp_path / "a.beton"), "dataset_val_path": str(tmp_path / "a.beton")}
    for value in (10, 200):
        write_beton(tmp_path / "a.beton", [(np.full((8, 8, 3), value, np.uint8), 0)] * 9, ["one"])
        for batch_size in range(1, 6):
            images, _ = next(
                open_data("ffcv", batch_size=batch_size, image_size=8, **paths).validation.epoch(0)
            )
            assert images[0, 0, 0, 0].item() == pytest.approx((value / 255 - 0.485) / 0.229, abs=1e-5)
    assert len(ffcv_loader._loaders) == ffcv_loader.CACHED_LOADERS


def test_leaving_an_epoch_early_ends_its_thread(dataset):
    data = open_data(**dataset)
    for _ in range(5):
        for _batch in data.train.epoch(0):
            break
    gc.collect()
    assert epoch_threads() == []
    assert len(drawn(data.train.epoch(0))) == len(data.train)


def test_epochs_drawn_in_turns_from_one_loader_do_not_disturb_each_other(dataset):
    one, two = open_data(**dataset, seed=1), open_data(**dataset, seed=2)
    assert one.train._loader is two.train._loader
    expected = drawn(one.train.epoch(0)), drawn(two.train.epoch(5))
    abandoned = one.train.epoch(9)
    next(abandoned)
    pairs = list(zip(one.train.epoch(0), two.train.epoch(5), strict=True))
    assert same([pair[0] for pair in pairs], expected[0])
    assert same([pair[1] for pair in pairs], expected[1])
    abandoned.close()
    assert epoch_threads() == []


def test_image_that_cannot_be_decoded_stops_the_loop_with_its_number(tmp_path, photos):
    broken = tmp_path / "broken.beton"
    content = bytearray(Path(photos["dataset_val_path"]).read_bytes())
    at = [i for i in range(len(content) - 3) if content[i : i + 3] == b"\xff\xd8\xff"][4]
    content[at : at + 40] = bytes(40)
    broken.write_bytes(content)
    data = open_data(
        "ffcv", batch_size=2, image_size=9, dataset_path=photos["dataset_path"], dataset_val_path=broken
    )
    with pytest.raises(DataError, match="broken.beton: image 4: cannot be decoded"):
        drawn(data.validation.epoch(0))
    assert epoch_threads() == []


def test_jpeg_with_stray_bytes_is_shown_as_the_torch_loader_shows_it(tmp_path):
    for split in ("train", "val"):
        for number in range(3):
            save_jpeg(tmp_path / split / "a" / f"{number}.jpg", number)
    stray = tmp_path / "val/a/1.jpg"
    content = stray.read_bytes()
    stray.write_bytes(content[:-2] + b"\x12\x34" * 64 + content[-2:])  # before the end marker
    options = LoadingOptions(channels_last=True)
    ffcv, torch_ = (
        open_data("imagenet_small", dataset_path=tmp_path, batch_size=3, image_size=20, options=chosen)
        for chosen in (options, replace(options, loader="torch"))
    )
    for split in ("train", "validation"):
        images, expected = (next(getattr(data, split).epoch(0))[0] for data in (ffcv, torch_))
        # Decoders differ by up to 3 of 255 levels in the mean, other images by 50 or more.
        assert (images - expected).abs().mean((1, 2, 3)).max() < 0.06


def test_process_that_leaves_epochs_open_ends_quietly_and_keeps_torchs_threads(dataset, run_python):
    code = f"""
import torch
torch.set_num_threads(2)
import data
opened = data.open_data(**{dataset!r})
iterators = [opened.train.epoch(0), opened.validation.epoch(0)]
for iterator in iterators:
    next(iterator)
for _ in opened.train.epoch(1):
    pass
assert torch.get_num_threads() == 2, torch.get_num_threads()
"""
    ended = run_python(code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_package_imports_without_torch_and_ffcv(run_python):
    code = "import data, sys; print([m for m in ('torch', 'ffcv', 'numba', 'sklearn') if m in sys.modules])"
    assert run_python(code).stdout == "[]\n"


def test_missing_ffcv_is_named_when_it_is_needed(run_python):
    code = """
import sys
sys.modules["ffcv"] = None
import data
try:
    data.check_data("digits")
except data.DataError as error:
    print(error)
"""
    message = run_python(code).stdout
    assert "read through ffcv, which cannot be imported" in message
    assert "pip install ffcv" in message
