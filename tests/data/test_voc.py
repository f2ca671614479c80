from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import DataError
from data.voc import VOC_CLASSES, Box, VocFilter, VocSegmentation

HEIGHT, WIDTH = 13, 20
DOG, CAT, VOID = VOC_CLASSES.index("dog"), VOC_CLASSES.index("cat"), 255


def annotation(*objects: str) -> str:
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(objects)}</annotation>"


def annotated(name="dog", box=(4, 3, 9, 7), **flags) -> str:
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    bounds = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
    marks = "".join(
        f"<{key}>{value}</{key}>" for key, value in ({"occluded": 0} | flags).items() if value != ""
    )
    return f"<object><name>{name}</name>{marks}<bndbox>{bounds}</bndbox></object>"


def mask() -> np.ndarray:
    """A dog of 6 x 5 pixels in the box (4, 3, 9, 7), framed by void, and a cat that isn't annotated."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[1:8, 2:10] = VOID
    pixels[2:7, 3:9] = DOG
    pixels[10:12, 15:19] = CAT
    return pixels


PHOTOS = {
    "plain": annotation(annotated()),
    "two": annotation(annotated(), annotated("cat", (16, 11, 19, 12))),
    "occluded": annotation(annotated(occluded=1)),
    "unmarked": annotation(annotated(occluded="")),
    "truncated": annotation(annotated(truncated=1)),
    "difficult": annotation(annotated(difficult=1)),
    "nothing": annotation(),
    "elsewhere": annotation(annotated()),
}


@pytest.fixture
def root(tmp_path) -> Path:
    """A VOC folder of eight photos; ImageSets/Main doesn't list the last."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in (
        "Annotations",
        "ImageSets/Segmentation",
        "ImageSets/Main",
        "JPEGImages",
        "SegmentationClass",
    ):
        (root / folder).mkdir(parents=True)
    for number, (name, text) in enumerate(PHOTOS.items()):
        (root / "Annotations" / f"{name}.xml").write_text(text)
        Image.new("RGB", (WIDTH, HEIGHT), (20 * number, 100, 50)).save(root / "JPEGImages" / f"{name}.jpg")
        picture = Image.fromarray(mask(), "P")
        picture.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
        picture.save(root / "SegmentationClass" / f"{name}.png")
    names = list(PHOTOS)
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(names) + "\n")
    (root / "ImageSets/Main/val.txt").write_text("\n".join(names[:-1]) + "\n")
    return root


def test_mask_is_the_objects_class_and_the_void_border_is_apart(root):
    photo = VocSegmentation(root, "val")[0]
    assert photo.name == "plain"
    assert (photo.object_mask == (mask() == DOG)).all()  # not the cat, not the border
    assert photo.object_mask.sum() == 5 * 6
    assert (photo.void_mask == (mask() == VOID)).all()
    assert not (photo.object_mask & photo.void_mask).any()


def test_boxes_count_from_0_so_that_slicing_with_them_cuts_the_object_out(root):
    photo = VocSegmentation(root, "val")[0]
    assert photo.box == Box(3, 2, 9, 7)
    assert (photo.box.width, photo.box.height) == (6, 5)
    cut = photo.object_mask[photo.box.top : photo.box.bottom, photo.box.left : photo.box.right]
    assert cut.all()
    assert cut.size == photo.object_mask.sum()


def test_image_keeps_its_colours_and_its_class_has_a_name(root):
    photo = VocSegmentation(root, "val")[1]
    assert (photo.name, photo.class_name, photo.class_id) == ("unmarked", "dog", DOG)
    assert photo.image.shape == (HEIGHT, WIDTH, 3)
    assert photo.image.dtype == np.uint8
    assert abs(photo.image.astype(int) - (60, 100, 50)).max() <= 3  # JPEG


def test_default_filter_counts_what_it_drops_and_keeps_what_isnt_marked(root):
    photos = VocSegmentation(root, "val")
    assert photos.names == ("plain", "unmarked", "difficult")
    assert photos.class_ids == (DOG,) * 3
    assert (photos.counts.listed, photos.counts.kept) == (8, 3)
    assert photos.counts.dropped == {
        "several objects": 1,
        "occluded": 1,
        "truncated": 1,
        "no object": 1,
        "not listed for detection": 1,
    }
    assert photos.counts.per_class == {"dog": 3}


def test_difficult_object_that_annotators_masked_out_is_dropped_and_counted(root):
    path = root / "SegmentationClass/difficult.png"
    pixels = mask()
    pixels[pixels == DOG] = VOID
    picture = Image.fromarray(pixels, "P")
    picture.putpalette([0] * 768)
    picture.save(path)
    photos = VocSegmentation(root, "val")
    assert [photo.name for photo in photos] == ["plain", "unmarked"]
    assert photos.counts.dropped["object is void"] == 1


def test_filter_of_the_thesis_drops_difficult_and_unmarked_images_too(root):
    photos = VocSegmentation(root, "val", VocFilter.thesis())
    assert photos.names == ("plain",)
    assert photos.counts.dropped["occlusion unknown"] == photos.counts.dropped["difficult"] == 1


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("several", "two"),
        ("occluded", "occluded"),
        ("truncated", "truncated"),
        ("outside_detection", "elsewhere"),
    ],
)
def test_each_rule_can_be_lifted(root, rule, name):
    kept = VocSegmentation(root, "val", replace(VocFilter(), **{rule: True})).names
    assert set(kept) == {"plain", "unmarked", "difficult", name}


def test_of_several_objects_the_first_is_cut_out(root):
    photos = VocSegmentation(root, "val", VocFilter(several=True))
    photo = photos[photos.names.index("two")]
    assert photo.class_name == "dog"
    assert [item.class_name for item in photo.objects] == ["dog", "cat"]
    assert photo.objects[1].box == Box(15, 10, 19, 12)


def test_folder_above_and_slices_and_iteration_give_the_same_photos(root):
    photos = VocSegmentation(root.parent.parent, "val")
    assert photos.root == root
    assert [photo.name for photo in photos] == [photo.name for photo in photos[:]] == list(photos.names)
    assert photos[-1].name == "difficult"
    with pytest.raises(IndexError):
        photos[3]


def test_home_of_nobody_is_a_missing_folder():
    refused("no folder at .*/~nobody.here; give the VOC folder", "~nobody.here")


def refused(match, root, read=False):
    def use():
        photos = VocSegmentation(root, "val")
        return photos[0] if read else photos

    with pytest.raises(DataError, match=match) as caught:
        use()
    assert "\n" not in str(caught.value)


def test_missing_folders_lists_and_annotations_are_named(root, tmp_path):
    refused(f"no folder at {tmp_path}/none", tmp_path / "none")
    refused("Annotations is not a VOC folder", root / "Annotations")
    (root / "Annotations/two.xml").unlink()
    refused("no annotation at .*two.xml", root)
    (root / "ImageSets/Segmentation/val.txt").write_text("\n")
    refused("val.txt: lists no images", root)
    (root / "ImageSets/Segmentation/val.txt").unlink()
    refused("no list of images at .*Segmentation/val.txt", root)


def test_of_two_voc_folders_one_must_be_chosen(root):
    (root.parent / "VOC2007" / "SegmentationClass").mkdir(parents=True)
    refused("holds several VOC folders; give one of .*VOC2007, .*VOC2012", root.parent)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("<annotation>", "no element found"),
        (annotation(annotated("wolf")), "unknown class 'wolf'"),
        (annotation(annotated(box=(0, 3, 9, 7))), "box 0, 3, 9, 7 is not within 20 x 13 pixels"),
        (annotation(annotated(box=(4, 3, 21, 7))), "box 4, 3, 21, 7 is not within"),
        (annotation(annotated(box=(4, 3, "", 7))), "<object> has no <bndbox/xmax>"),
        (annotation(annotated(occluded=2)), "<occluded> must be 0 or 1, got '2'"),
    ],
)
def test_annotation_that_makes_no_sense_is_named(root, text, match):
    (root / "Annotations/plain.xml").write_text(text)
    refused(f"plain.xml: {match}", root)


def test_masks_and_images_that_make_no_sense_are_named(root):
    mask_path, image_path = root / "SegmentationClass/plain.png", root / "JPEGImages/plain.jpg"
    for pixels, match in (
        (np.zeros((HEIGHT, WIDTH), np.uint8), "has no pixel of class dog"),
        (np.full((HEIGHT, WIDTH), 21, np.uint8), "has class 21; allowed are 0 to 20 and 255"),
        (np.zeros((WIDTH, HEIGHT), np.uint8), "is 13 x 20 pixels, the image 20 x 13"),
        (np.zeros((HEIGHT, WIDTH, 3), np.uint8), r"holds colours \(RGB\)"),
    ):
        Image.fromarray(pixels).save(mask_path)
        refused(f"plain.png: {match}", root, read=True)
    mask_path.unlink()
    refused("no image at .*plain.png", root, read=True)
    image_path.write_bytes(image_path.read_bytes()[:300])
    refused("plain.jpg: cannot be decoded", root, read=True)
