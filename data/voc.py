"""Pascal VOC segmentation with boxes: images whose object can be cut out, for the analysis of shapes.

    photos = VocSegmentation("/data/VOCdevkit/VOC2012", split="val")
    photos.counts                # how many images the filter kept, and why the others were dropped
    photo = photos[0]
    photo.image                  # (H, W, 3) uint8
    photo.object_mask            # (H, W) bool: pixels of the object's class, without its border
    photo.void_mask              # (H, W) bool: the border of a few pixels that annotators left undecided
    photo.box                    # Box(left, top, right, bottom), counted from 0, right and bottom excluded

The folder is the one of VOC's archives: Annotations/, ImageSets/Segmentation/, JPEGImages/ and
SegmentationClass/. The thesis' code differs in three places: it painted the void border as background, which
ate into thin objects, and took any other class for the object; it read VOC's boxes, which count from 1, as if
they counted from 0; and it dropped images without an `occluded` mark, all those of 2007, and those marked
`difficult`. `VocFilter.thesis()` drops as it did.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from data.imagenet_voc import imagenet_table
from data.info import DataError
from data.voc_objects import VOC_CLASSES, Box, VocFilter, VocObject, read_annotation

VOID = 255
"""Pixel value in SegmentationClass/ of borders and of what annotators left out."""

Split = Literal["train", "val", "trainval"]


@dataclass(frozen=True)
class VocCounts:
    """What became of the images of a split."""

    listed: int
    """Images of the split."""

    kept: int
    dropped: dict[str, int]
    """Images by the first reason why they were dropped."""

    per_class: dict[str, int]
    """Kept images by class name, without classes that have none."""


@dataclass(frozen=True)
class VocPhoto:
    """An image and where its object is."""

    name: str
    """Its file's name without the ending, e.g. "2007_000032"."""

    image: NDArray[np.uint8]
    """(H, W, 3)."""

    object_mask: NDArray[np.bool_]
    """(H, W): pixels of the object's class. Void pixels are not among them."""

    void_mask: NDArray[np.bool_]
    """(H, W): borders, and what annotators left out."""

    objects: tuple[VocObject, ...]
    """All annotated objects; the mask and the box are of the first one's class and the first one."""

    @property
    def box(self) -> Box:
        """Box of the object."""
        return self.objects[0].box

    @property
    def class_id(self) -> int:
        """Class of the object, 1 to 20."""
        return self.objects[0].class_id

    @property
    def class_name(self) -> str:
        """Name of that class."""
        return self.objects[0].class_name


class VocSegmentation(Sequence[VocPhoto]):
    """The photos of a split that a filter keeps, in its order. Annotations are read at once, pixels late.

    Args:
        path: Folder with Annotations/ and so on, or one that holds a single such folder (VOCdevkit/).
        split: Which list of ImageSets/Segmentation/.
        keep: Which images are kept.

    Raises:
        DataError: a folder, file or annotation is missing or makes no sense; pixels are checked when read.
    """

    def __init__(self, path: str | Path, split: Split = "trainval", keep: VocFilter = VocFilter()):  # noqa: B008
        self.root = _find_root(Path(os.path.expanduser(path)).absolute())
        names = _listed(self.root / "ImageSets" / "Segmentation" / f"{split}.txt")
        detection = self.root / "ImageSets" / "Main" / f"{split}.txt"
        detected = (
            set(_listed(detection)) if detection.exists() and not keep.outside_detection else set(names)
        )
        self._photos: list[tuple[str, tuple[VocObject, ...]]] = []
        dropped: dict[str, int] = {}
        per_class: dict[str, int] = {}
        for name in names:
            objects = read_annotation(self.root / "Annotations" / f"{name}.xml")
            reason = keep.reason(objects) if name in detected else "not listed for detection"
            if reason is None and self._is_void(name, objects[0]):
                reason = "object is void"
            if reason:
                dropped[reason] = dropped.get(reason, 0) + 1
                continue
            self._photos.append((name, objects))
            per_class[objects[0].class_name] = per_class.get(objects[0].class_name, 0) + 1
        self.counts = VocCounts(len(names), len(self._photos), dropped, dict(sorted(per_class.items())))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the kept photos."""
        return tuple(name for name, _ in self._photos)

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Class of each kept photo's object, 1 to 20; no image is decoded."""
        return tuple(objects[0].class_id for _, objects in self._photos)

    def _is_void(self, name: str, item: VocObject) -> bool:
        """Whether annotators masked an object out, as they might if it was difficult or cut off."""
        if not (item.difficult or item.truncated):
            return False
        classes = _read_image(self._mask_path(name), "P")
        return bool((classes == VOID).any() and not (classes == item.class_id).any())

    def _mask_path(self, name: str) -> Path:
        return self.root / "SegmentationClass" / f"{name}.png"

    def __len__(self) -> int:
        return len(self._photos)

    def __iter__(self) -> Iterator[VocPhoto]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> VocPhoto: ...
    @overload
    def __getitem__(self, index: slice) -> list[VocPhoto]: ...

    def __getitem__(self, index: int | slice) -> VocPhoto | list[VocPhoto]:
        """Read a photo; DataError names a file that is missing, damaged or of another size."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        name, objects = self._photos[index]
        image = _read_image(self.root / "JPEGImages" / f"{name}.jpg", "RGB")
        mask_path = self._mask_path(name)
        classes = _read_image(mask_path, "P")
        if classes.shape != image.shape[:2]:
            raise DataError(f"{mask_path}: is {_size(classes)} pixels, the image {_size(image)}")
        strange = (classes > len(VOC_CLASSES) - 1) & (classes != VOID)
        if strange.any():
            raise DataError(f"{mask_path}: has class {classes[strange][0]}; allowed are 0 to 20 and {VOID}")
        object_mask = classes == objects[0].class_id
        if not object_mask.any():
            raise DataError(f"{mask_path}: has no pixel of class {objects[0].class_name}, which is annotated")
        return VocPhoto(name, image, object_mask, classes == VOID, objects)


def imagenet_to_voc() -> tuple[int, ...]:
    """VOC class id of each of the 1000 ImageNet classes in ImageNet's order; 0 where there is none."""
    return tuple(class_id for _, class_id in imagenet_table())


def voc_class_ids(class_names: Sequence[str]) -> tuple[int, ...]:
    """VOC class id of each class of a network: WordNet ids and VOC's own names are known, others are 0."""
    known = dict(imagenet_table()) | {name: class_id for class_id, name in enumerate(VOC_CLASSES)}
    return tuple(known.get(name, 0) for name in class_names)


def _find_root(path: Path) -> Path:
    if not os.path.isdir(path):  # pathlib raises where a folder above may not be entered
        raise DataError(f"no folder at {path}; give the VOC folder with Annotations and SegmentationClass")
    if os.path.isdir(path / "SegmentationClass"):
        return path
    found = sorted(
        {mask.parent for pattern in ("*", "*/*") for mask in path.glob(f"{pattern}/SegmentationClass")}
    )
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{path} holds several VOC folders; give one of {', '.join(map(str, found))}")
    raise DataError(f"{path} is not a VOC folder: it has no SegmentationClass")


def _listed(path: Path) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        raise DataError(f"no list of images at {path}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if not names:
        raise DataError(f"{path}: lists no images")
    return names


def _read_image(path: Path, mode: Literal["RGB", "P"]) -> NDArray[np.uint8]:
    """Pixels as RGB (H, W, 3), or the class numbers of a mask with a palette (H, W)."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if mode == "P" and image.mode not in ("P", "L"):
                raise DataError(f"{path}: holds colours ({image.mode}); class numbers are needed")
            return np.array(image.convert("RGB") if mode == "RGB" else image)
    except FileNotFoundError:
        raise DataError(f"no image at {path}") from None
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: cannot be decoded ({error})") from None


def _size(pixels: NDArray[np.uint8]) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
