"""Which Pascal VOC class an ImageNet class belongs to, by ancestry in WordNet 3.0.

An ImageNet class is a WordNet noun (n02084071 is the noun at byte 02084071 of data.noun). It belongs to a
VOC class when the noun chosen for that class is an ancestor of it or the noun itself, along hypernyms and
instance hypernyms. Where two VOC classes match, the later one wins: "ram" is a sheep and no cow. 238 of the
1000 classes match; half of them are dogs. The table is shipped; this writes it again (Debian: wordnet-base):

    python -m data.imagenet_voc --wordnet /usr/share/wordnet --out data/imagenet_voc.csv

The table derives from WordNet 3.0, Copyright 2006 by Princeton University, all rights reserved: permission to
use, copy, modify and distribute it without fee is given, provided that this notice appears on all copies; it
is provided "as is", without warranties of any kind.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from functools import cache
from pathlib import Path

from data.info import DataError
from data.voc_objects import VOC_CLASSES

TABLE = Path(__file__).with_name("imagenet_voc.csv")

# Noun and sense number where they are not the class name and 1.
_SENSES = {
    "aeroplane": ("heavier-than-air_craft", 1),
    "cow": ("bovid", 1),
    "diningtable": ("dining_table", 1),
    "pottedplant": ("flowerpot", 1),
    "train": ("locomotive", 1),
    "tvmonitor": ("television", 2),
}


@cache
def imagenet_table() -> tuple[tuple[str, int], ...]:
    """WordNet id and VOC class id (0: none) of the 1000 ImageNet classes, in ImageNet's order."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return tuple((row["wnid"], VOC_CLASSES.index(row["voc_class"] or "background")) for row in rows)


def rebuild(wordnet: Path, wnids: list[str]) -> str:
    """The table for ImageNet classes in their order as CSV text; `wordnet` has index.noun and data.noun."""
    ancestor_class = {offset: name for name, offset in _voc_nouns(wordnet).items()}
    parents = _hypernyms(wordnet)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["imagenet_index", "wnid", "voc_class"])
    for index, wnid in enumerate(wnids):
        offset = wnid.removeprefix("n")
        if offset not in parents:
            raise DataError(f"{wordnet / 'data.noun'}: has no noun {wnid}; WordNet 3.0 is needed")
        found = {ancestor_class[noun] for noun in _ancestry(offset, parents) if noun in ancestor_class}
        writer.writerow([index, wnid, max(found, key=VOC_CLASSES.index, default="")])
    return text.getvalue()


def _voc_nouns(wordnet: Path) -> dict[str, str]:
    """Offset in data.noun of the noun chosen for each VOC class."""
    senses: dict[str, list[str]] = {}
    for line in _lines(wordnet / "index.noun"):
        fields = line.split()
        senses[fields[0]] = fields[-int(fields[2]) :]  # offsets close the line, most frequent sense first
    offsets = {}
    for name in VOC_CLASSES[1:]:
        noun, sense = _SENSES.get(name, (name, 1))
        if len(senses.get(noun, [])) < sense:
            raise DataError(
                f"{wordnet / 'index.noun'}: has no sense {sense} of {noun}; WordNet 3.0 is needed"
            )
        offsets[name] = senses[noun][sense - 1]
    return offsets


def _hypernyms(wordnet: Path) -> dict[str, list[str]]:
    """Offsets of the parents of every noun: offset, file, type, word count (hexadecimal), words, pointers."""
    parents = {}
    for line in _lines(wordnet / "data.noun"):
        fields = line.split("|")[0].split()
        first = 4 + 2 * int(fields[3], 16)
        pointers = fields[first + 1 : first + 1 + 4 * int(fields[first])]
        parents[fields[0]] = [
            target for kind, target in zip(pointers[::4], pointers[1::4], strict=True) if kind in ("@", "@i")
        ]
    return parents


def _ancestry(offset: str, parents: dict[str, list[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [offset]
    while waiting:
        noun = waiting.pop()
        if noun not in seen:
            seen.add(noun)
            waiting += parents[noun]
    return seen


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"--wordnet: no file at {path}; give the folder of WordNet 3.0's database files")
    # The licence at the top of each file is indented.
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith(" ")]


def main(arguments: list[str] | None = None) -> int:
    """Write the table again; exit code 2 where WordNet is not what it should be."""
    parser = argparse.ArgumentParser(
        prog="python -m data.imagenet_voc",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of WordNet 3.0"
    )
    parser.add_argument("--out", type=Path, help="file to write (default: print)")
    given = parser.parse_args(arguments)
    try:
        text = rebuild(given.wordnet, [wnid for wnid, _ in imagenet_table()])
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
