import json

import numpy as np
import pytest
import torch

from data import DataError, check_data, open_data
from data.beton_index import inspect_beton
from data.beton_writer import write_beton


def coloured(value):
    return np.full((9, 11, 3), value, np.uint8)


def test_manifest_tells_names_counts_size_and_checksum(tmp_path):
    path = write_beton(
        tmp_path / "a.beton", [(coloured(i), i) for i in range(3)], ["x", "y", "z"], notes={"hue": 1}
    )
    manifest = json.loads((tmp_path / "a.beton.json").read_text())
    assert manifest["class_names"] == ["x", "y", "z"]
    assert manifest["num_samples"] == 3
    assert manifest["bytes"] == path.stat().st_size
    assert manifest["hue"] == 1
    assert inspect_beton(path, "dataset_path").class_names == ("x", "y", "z")


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = write_beton(tmp_path / "a.beton", [(coloured(1), 0)], ["x"])
    before = path.read_bytes()
    for bad in ((coloured(1).astype(float), 0), (coloured(1), 5), (coloured(1)[..., :1], 0)):
        with pytest.raises(ValueError, match=r"uint8|label 5|must be \(height, width, 3\)"):
            write_beton(path, [(coloured(2), 0), bad], ["x"])
    with pytest.raises(DataError, match="no samples"):
        write_beton(path, [], ["x"])
    assert path.read_bytes() == before
    names = {file.name for file in tmp_path.iterdir()}
    assert names <= {"a.beton", "a.beton.json", "a.beton.lock"}


def test_writing_says_nothing(tmp_path, capfd):
    write_beton(tmp_path / "a.beton", [(coloured(1), 0)] * 300, ["x"])
    assert capfd.readouterr() == ("", "")


def test_same_samples_give_the_same_bytes(tmp_path):
    first, second = (write_beton(tmp_path / f"{n}.beton", [(coloured(1), 0)] * 5, ["x"]) for n in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_file_of_ffcvs_own_writer_with_more_fields_is_read(tmp_path):
    from ffcv.fields import FloatField, IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    path = tmp_path / "foreign.beton"
    fields = {"weight": FloatField(), "label": IntField(), "image": RGBImageField()}
    samples = [(0.5, i % 2, coloured(10 * i)) for i in range(7)]
    DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(samples)
    info = check_data("ffcv", dataset_path=path, dataset_val_path=path, image_size=9)
    assert info.num_classes == 2
    data = open_data("ffcv", dataset_path=path, dataset_val_path=path, image_size=9, batch_size=4)
    images, labels = (torch.cat(parts) for parts in zip(*data.validation.epoch(0), strict=True))
    values = [(10 * i / 255 - 0.485) / 0.229 for i in range(7)]
    assert images[:, 0, 4, 4].tolist() == pytest.approx(values, abs=1e-5)
    assert labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
