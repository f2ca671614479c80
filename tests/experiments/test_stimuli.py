from pathlib import Path

import numpy as np
import pytest

from data.voc_objects import Box
from experiments.errors import InputError
from experiments.stimuli import shapebias, thesis
from experiments.stimuli.item import Cutout, Item, padded_to_square, resize
from experiments.stimuli.make import STIMULI, canonical, make_stimulus, noise_of

GOLDEN = np.load(Path(__file__).parent / "golden" / "stimuli.npz")
"""Images, masks and boxes, and the stimuli that the thesis' code made of them at 224 px."""


def golden_item(index: int) -> Item:
    x, y, width, height = (int(value) for value in GOLDEN[f"{index}.bbox"])
    mask = GOLDEN[f"{index}.mask"] > 0
    # The thesis' numbers back to corners counted from 0.
    box = Box(x - 1, y - 1, x + width, y + height)
    return Item(f"image-{index}", 1, GOLDEN[f"{index}.image"], mask, np.zeros_like(mask), box)


def golden_stimulus(index: int, stimulus: str) -> np.ndarray:
    return GOLDEN[f"{index}.{stimulus}"].transpose(1, 2, 0)


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("stimulus", ["normal", "foreground", "silhouette", "frankenstein"])
def test_stimuli_of_the_thesis_are_its_own_to_the_bit(index: int, stimulus: str) -> None:
    ours = make_stimulus(golden_item(index), stimulus, 224, protocol="thesis")
    np.testing.assert_array_equal(ours, golden_stimulus(index, stimulus))


@pytest.mark.parametrize("index", range(3))
def test_serrated_of_the_thesis_is_its_own_to_the_bit_given_its_noise(index: int) -> None:
    cutout = thesis.cut_out(golden_item(index))
    noise = np.random.RandomState(11 + index).randn(*cutout.mask.shape)
    ours = resize(thesis.serrated(cutout, noise), 224)
    np.testing.assert_array_equal(ours, golden_stimulus(index, "serrated"))


def drawn(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def cutout(mask: np.ndarray, void: np.ndarray | None = None) -> Cutout:
    image = np.arange(mask.size * 3, dtype=np.uint8).reshape(*mask.shape, 3)
    return Cutout(image, mask, np.zeros_like(mask) if void is None else void)


def shape(pixels: np.ndarray) -> list[str]:
    assert np.isin(pixels, (0, 255)).all()
    assert (pixels == pixels[:, :, :1]).all()
    return ["".join("#" if value == 0 else "." for value in row) for row in pixels[:, :, 0]]


def test_frankenstein_of_shapebias_flips_below_the_centre_of_mass_and_joins_the_halves() -> None:
    mask = drawn(
        ".........",
        "..###....",
        "..###....",
        "..####...",
        "..####...",
        ".........",
    )
    # Centre of mass at row 2.57: the cut is above row 3. Flipped, "..####..." is "...####..". The row above
    # the cut has columns 2 to 4: the shift is 2 - (9 - 4) = -3, which puts the lower part at columns 0 to 3.
    assert shape(shapebias.frankenstein(cutout(mask))) == [
        ".........",
        "..###....",
        "..###....",
        "####.....",
        "####.....",
        ".........",
    ]


def test_frankenstein_of_shapebias_moves_right_too_and_fills_with_background() -> None:
    mask = drawn("....##", "....##", "#...##", "#...##")
    # Centre of mass 1.8: cut at 2; flipped "##...#"; shift 4 - (6 - 5) = 3.
    assert shape(shapebias.frankenstein(cutout(mask))) == ["....##", "....##", "...##.", "...##."]


def test_frankenstein_of_shapebias_without_a_shift_only_flips() -> None:
    mask = drawn(".##", ".##", ".#.", ".##")  # centre of mass 1.4; in the row above: first 1, width 3, last 2
    assert shape(shapebias.frankenstein(cutout(mask))) == [".##", "##.", ".#.", "##."]


def test_frankenstein_keeps_the_upper_part() -> None:
    item = golden_item(0)
    cut = shapebias.cut_out(item)
    flipped = shapebias.frankenstein(cut)[:, :, 0] == 0
    rows = np.arange(len(cut.mask))
    centre = round((rows * cut.mask.sum(axis=1)).sum() / cut.mask.sum())
    np.testing.assert_array_equal(flipped[:centre], cut.mask[:centre])
    assert (flipped[centre:].sum(axis=1) <= cut.mask[centre:].sum(axis=1)).all()


def test_serrated_of_shapebias_is_noise_on_the_widened_void_and_silhouette_elsewhere() -> None:
    mask = np.zeros((15, 17), dtype=bool)
    mask[6:9, 6:9] = True
    void = np.zeros_like(mask)
    void[7, 2] = True
    noise = np.random.default_rng(0).standard_normal(mask.shape)
    pixels = shapebias.serrated(cutout(mask, void), noise)[:, :, 0]
    # 5 // 2 = 2 steps of a cross: a diamond of 13 pixels.
    y, x = np.indices(mask.shape)
    diamond = abs(y - 7) + abs(x - 2) <= 2
    assert diamond.sum() == 13
    np.testing.assert_array_equal(pixels[~diamond], np.where(mask, 0, 255)[~diamond])
    from scipy.ndimage import gaussian_filter

    np.testing.assert_array_equal(pixels[diamond] == 255, gaussian_filter(noise, 2.0)[diamond] > 0)


def test_box_of_shapebias_grows_by_a_fifth_on_each_side_and_is_cut_at_the_image() -> None:
    image = np.zeros((100, 120, 3), dtype=np.uint8)
    image[..., 0], image[..., 1] = np.indices((100, 120))
    mask = np.zeros((100, 120), dtype=bool)
    # Written xmin 30, xmax 80, ymin 2, ymax 42: 30 - 10 to 80 + 10, and 2 - 8 (cut) to 42 + 8.
    item = Item("x", 1, image, mask, mask, Box(29, 1, 80, 42))
    shown = shapebias.cut_out(item).image
    assert shown.shape == (50, 70, 3)
    assert shown[0, 0, :2].tolist() == [0, 20]


def test_box_of_the_thesis_is_moved_into_the_image_and_black_where_it_does_not_fit() -> None:
    image = np.full((40, 120, 3), 7, dtype=np.uint8)
    mask = np.zeros((40, 120), dtype=bool)
    shown = thesis.cut_out(Item("x", 1, image, mask, mask, Box(79, 0, 120, 40))).image
    # 39 rows become 54, 14 of them (int(40 - 54.6)) above the image; 40 columns become 56.
    assert shown.shape == (54, 56, 3)
    assert (shown[:14] == 0).all()
    assert (shown[14:] == 7).all()


def test_foreground_is_the_object_of_the_photo_on_the_ground() -> None:
    mask = drawn("##..", "#...")
    item = Item("x", 1, cutout(mask).image, mask, np.zeros_like(mask), None)
    pixels = make_stimulus(item, "foreground", 4, protocol="shapebias")
    assert (pixels[:2, :2] == [item.image[0, 0], item.image[0, 1]]).all()
    assert (pixels[:, 2:] == 255).all()
    assert (pixels[2:, 1] == 255).all()


@pytest.mark.parametrize("protocol", ["thesis", "shapebias"])
def test_stimuli_on_a_black_ground_are_the_negatives_of_those_on_white(protocol: str) -> None:
    white = golden_item(1)
    black = Item(white.name, 1, white.image, white.mask, white.void, white.box, ground=0)
    for stimulus in ("silhouette", "frankenstein", "serrated"):
        on_white = make_stimulus(white, stimulus, 64, protocol=protocol)  # type: ignore[arg-type]
        on_black = make_stimulus(black, stimulus, 64, protocol=protocol)  # type: ignore[arg-type]
        np.testing.assert_array_equal(on_white, 255 - on_black)


def test_noise_depends_on_image_and_seed_alone() -> None:
    first = noise_of("2007_000032", 0, (5, 7))
    np.testing.assert_array_equal(first, noise_of("2007_000032", 0, (5, 7)))
    assert not np.allclose(first, noise_of("2007_000033", 0, (5, 7)))
    assert not np.allclose(first, noise_of("2007_000032", 1, (5, 7)))


def test_padding_keeps_proportions() -> None:
    square = padded_to_square(cutout(drawn("####", "####")), ground=255)
    assert square.mask.tolist() == drawn("....", "####", "####", "....").tolist()
    assert (square.image[0] == 255).all()


def test_both_spellings_are_understood_and_others_are_named() -> None:
    assert canonical("shilouette") == canonical("silhouette") == canonical("Silhouettes") == "silhouette"
    with pytest.raises(InputError, match="'sketch'; known are normal, foreground"):
        canonical("sketch")
    assert [canonical(name) for name in STIMULI] == list(STIMULI)


@pytest.mark.parametrize("protocol", ["thesis", "shapebias"])
def test_an_object_too_thin_to_be_cut_out_is_named(protocol: str) -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[3:15, 7] = True
    thin = Item("2008_000007", 1, np.zeros((20, 30, 3), np.uint8), mask, ~mask & mask, Box(7, 3, 8, 15))
    with pytest.raises(InputError, match="2008_000007: its object is .* too thin"):
        make_stimulus(thin, "silhouette", 32, protocol=protocol)
