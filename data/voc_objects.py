"""What Pascal VOC's annotations say of the objects in an image, and which images a filter keeps."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.info import DataError

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
"""Name of class id i at position i, as in the colours of VOC's masks; 0 is the background."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, counted from 0; `right` and `bottom` are the first column and row outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top


@dataclass(frozen=True)
class VocObject:
    """One annotated object."""

    class_id: int
    """Position in VOC_CLASSES, 1 to 20."""

    box: Box
    truncated: bool
    difficult: bool
    occluded: bool | None
    """None where the annotation doesn't say, as in 2007."""

    @property
    def class_name(self) -> str:
        """Name in VOC_CLASSES."""
        return VOC_CLASSES[self.class_id]


@dataclass(frozen=True)
class VocFilter:
    """Which images are kept. The defaults are those of the shapebias study (10.3389/fcomp.2023.1113609)."""

    outside_detection: bool = False
    """Keep images that the lists of the detection task (ImageSets/Main, where it is there) don't name."""

    several: bool = False
    """Keep images with more than one annotated object; the first one is then cut out."""

    occluded: bool = False
    """Keep images with an object marked occluded."""

    unknown_occlusion: bool = True
    """Keep images with an object that isn't marked either way."""

    truncated: bool = False
    """Keep images with an object that the image's edge or another object cuts off."""

    difficult: bool = True
    """Keep images with an object marked difficult, unless annotators made all of it void."""

    @classmethod
    def thesis(cls) -> VocFilter:
        """As the thesis' code filtered: difficult objects and unknown occlusion are dropped too."""
        return cls(unknown_occlusion=False, difficult=False)

    def reason(self, objects: Sequence[VocObject]) -> str | None:
        """Why an image with these objects is dropped, None if it is kept; the first reason counts."""
        if not objects:
            return "no object"
        checks = {
            "several objects": not self.several and len(objects) > 1,
            "occluded": not self.occluded and any(item.occluded for item in objects),
            "occlusion unknown": not self.unknown_occlusion
            and any(item.occluded is None for item in objects),
            "truncated": not self.truncated and any(item.truncated for item in objects),
            "difficult": not self.difficult and any(item.difficult for item in objects),
        }
        return next((name for name, dropped in checks.items() if dropped), None)


def read_annotation(path: Path) -> tuple[VocObject, ...]:
    """All objects of an annotation file, in its order; DataError if it is missing or makes no sense."""
    try:
        tree = ET.parse(path).getroot()
        width, height = (int(_text(tree, f"size/{side}")) for side in ("width", "height"))
        return tuple(_read_object(item, width, height) for item in tree.findall("object"))
    except FileNotFoundError:
        raise DataError(f"no annotation at {path}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ET.ParseError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None


def _read_object(item: ET.Element, width: int, height: int) -> VocObject:
    name = _text(item, "name")
    if name not in VOC_CLASSES[1:]:
        raise ValueError(f"unknown class {name!r}")
    # VOC counts pixels from 1 and includes the last one; some coordinates of 2011 are fractions.
    left, top, right, bottom = (round(float(_text(item, f"bndbox/{key}"))) for key in _CORNERS)
    if not (1 <= left <= right <= width and 1 <= top <= bottom <= height):
        raise ValueError(f"box {left}, {top}, {right}, {bottom} is not within {width} x {height} pixels")
    truncated, difficult, occluded = (_flag(item, key) for key in ("truncated", "difficult", "occluded"))
    box = Box(left - 1, top - 1, right, bottom)
    return VocObject(VOC_CLASSES.index(name), box, bool(truncated), bool(difficult), occluded)


_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def _text(item: ET.Element, key: str) -> str:
    text = item.findtext(key)
    if text is None or not text.strip():
        raise ValueError(f"<{item.tag}> has no <{key}>")
    return text.strip()


def _flag(item: ET.Element, key: str) -> bool | None:
    text = (item.findtext(key) or "").strip()
    if text not in ("", "0", "1"):
        raise ValueError(f"<{key}> must be 0 or 1, got {text!r}")
    return text == "1" if text else None
