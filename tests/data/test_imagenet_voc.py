"""The table from ImageNet to VOC. tests/data/wordnet: 81 nouns of WordNet 3.0, shortened, and its licence."""

from collections import Counter
from pathlib import Path

import pytest

from data.imagenet_voc import imagenet_table, main, rebuild
from data.voc import VOC_CLASSES, imagenet_to_voc, voc_class_ids

WORDNET = Path(__file__).parent / "wordnet"

# Classes whose place is not obvious: a ram is a sheep and a bovid, a bighorn only a bovid, an oven nothing.
CHOSEN = {
    "n02412080": "sheep",
    "n02403003": "cow",
    "n02415577": "cow",
    "n02110185": "dog",
    "n02123045": "cat",
    "n03785016": "motorbike",
    "n04487081": "bus",
    "n01443537": "",
    "n09835506": "person",
    "n03991062": "pottedplant",
    "n04404412": "tvmonitor",
    "n03201208": "diningtable",
    "n02690373": "aeroplane",
    "n01514668": "bird",
    "n04330267": "",
}


def test_rebuilding_from_wordnet_gives_these_classes():
    lines = rebuild(WORDNET, list(CHOSEN)).splitlines()
    assert lines[0] == "imagenet_index,wnid,voc_class"
    assert lines[1:] == [f"{i},{wnid},{name}" for i, (wnid, name) in enumerate(CHOSEN.items())]


def test_shipped_table_agrees_with_the_rebuilt_rows():
    shipped = {wnid: VOC_CLASSES[class_id] for wnid, class_id in imagenet_table()}
    assert {wnid: shipped[wnid] for wnid in CHOSEN} == {k: v or "background" for k, v in CHOSEN.items()}


def test_table_has_1000_classes_in_imagenets_order_of_which_238_are_in_voc():
    wnids = [wnid for wnid, _ in imagenet_table()]
    assert wnids == sorted(wnids)
    assert len(set(wnids)) == 1000
    counts = Counter(VOC_CLASSES[class_id] for class_id in imagenet_to_voc())
    assert counts.pop("background") == 1000 - 238
    assert counts == {
        "aeroplane": 2, "bicycle": 2, "bird": 59, "boat": 6, "bottle": 7, "bus": 3, "car": 10, "cat": 7,
        "chair": 4, "cow": 8, "diningtable": 1, "dog": 118, "horse": 1, "motorbike": 1, "person": 3,
        "pottedplant": 1, "sheep": 1, "sofa": 1, "train": 2, "tvmonitor": 1,
    }  # fmt: skip


def test_classes_of_a_network_are_found_by_wordnet_id_or_voc_name():
    assert voc_class_ids(["n02110185", "dog", "n01443537", "0", "tvmonitor"]) == (12, 12, 0, 0, 20)
    assert voc_class_ids([wnid for wnid, _ in imagenet_table()]) == imagenet_to_voc()


def test_missing_wordnet_ends_with_code_2_and_its_path(tmp_path, capsys):
    assert main(["--wordnet", str(tmp_path)]) == 2
    assert f"no file at {tmp_path}/index.noun" in capsys.readouterr().err


def test_other_wordnet_version_is_refused(tmp_path):
    for name in ("index.noun", "data.noun"):
        (tmp_path / name).write_text((WORDNET / name).read_text())
    with pytest.raises(ValueError, match="has no noun n00000001; WordNet 3.0 is needed"):
        rebuild(tmp_path, ["n00000001"])
