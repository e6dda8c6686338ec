"""Pictures in another size, byte for byte as the installed Pillow makes them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from bestiary_kernels.cpu.library import instruction_sets, library
from bestiary_kernels.cpu.media import resizing
from bestiary_kernels.cpu.media.arrow import NotShared, shared

SETS = pytest.mark.parametrize("instructions", instruction_sets())
FILTERS = pytest.mark.parametrize("resample", list(resizing.SUPPORTS), ids=lambda resample: resample.name)

EDGES = (
    ((1, 1), (7, 1)),
    ((1, 1), (40, 30)),
    ((2, 2), (1, 1)),
    ((1, 4000), (30, 30)),
    ((4000, 1), (30, 30)),
    ((1, 4000), (1, 3)),
    ((4000, 3), (1, 1)),
    ((3, 4000), (1, 1)),
    ((300, 1), (1, 300)),
    ((70, 90), (1, 90)),
    ((70, 90), (70, 1)),
    ((70, 90), (71, 90)),
    ((70, 90), (70, 91)),
    ((1100, 20), (2, 20)),
)
"""Widths and heights, before and after."""


@pytest.fixture(autouse=True)
def _numbers() -> None:
    random.seed(0)


def picture(width: int, height: int, hard: bool = False) -> Image.Image:
    """Noise; a hard one is of black and white alone, so that filters with negative weights leave the range of bytes."""
    numbers = np.random.default_rng(width * 10007 + height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray((numbers > 127).astype(np.uint8) * 255 if hard else numbers)


def known_order() -> resizing.Order:
    order = resizing._order()
    assert order is not None
    return order


def assert_same(instructions: str, image: Image.Image, size: tuple[int, int], resample: int, threads: int = 1) -> None:
    width, height = size
    made = resizing.resized(library(instructions), image, height, width, resample, known_order(), threads)
    expected = image.resize(size, Image.Resampling(resample))
    assert made is not None and (made.mode, made.size) == ("RGB", size)
    # With the fourth byte of each pixel, which nobody sees.
    assert made.tobytes("raw", "RGBX") == expected.tobytes("raw", "RGBX"), (image.size, size, resample)


@SETS
@FILTERS
def test_any_sizes(instructions: str, resample: int) -> None:
    for number in range(60):
        width, height, *size = (random.randint(1, 3 if random.random() < 0.1 else 80) for _ in range(4))
        if (width, height) != (size[0], size[1]):
            assert_same(
                instructions, picture(width, height, number % 3 == 0), (size[0], size[1]), resample, 1 + number % 2
            )


@SETS
@FILTERS
def test_extreme_sizes(instructions: str, resample: int) -> None:
    for before, after in EDGES:
        assert_same(instructions, picture(*before, hard=True), after, resample)


@SETS
def test_sizes_around_what_decides_which_axis_comes_first(instructions: str) -> None:
    for lost in (-9, -1, 0, 1, 7):
        for more in (-2, -1, 0, 1, 2):
            image, size = picture(31, 60), (31 - lost, 60 - max(0, 2 * lost) - more)
            if image.size != size:
                assert_same(instructions, image, size, Image.Resampling.BICUBIC)


def test_the_axes_matter() -> None:
    image, size = picture(40, 60), (37, 33)
    native = library()
    made = [
        resizing.resized(native, image, size[1], size[0], Image.Resampling.BICUBIC, order, 1)
        for order in (resizing.by_loss, resizing.rows_first)
    ]
    assert made[0] != made[1]


@SETS
def test_a_picture_whose_memory_is_in_pieces(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resizing, "_STRIP", 1000)
    for size in ((30, 40), (30, 2)):
        image = picture(60, 50)
        whole, native = image.resize(size, Image.Resampling.BICUBIC), library(instructions)

        def in_pieces(given: Image.Image, image: Image.Image = image) -> object:
            if given is image:
                raise NotShared
            return shared(given)

        with monkeypatch.context() as patched:
            patched.setattr(resizing, "shared", in_pieces)
            made = resizing.resized(native, image, size[1], size[0], Image.Resampling.BICUBIC, known_order(), 2)
        assert made is not None and made.tobytes() == whole.tobytes()


def test_pictures_too_large_for_one_piece_of_memory() -> None:
    large = picture(2100, 2001)
    with pytest.raises(NotShared):
        shared(large)
    assert_same(instruction_sets()[0], large, (40, 30), Image.Resampling.BILINEAR, 2)
    assert_same(instruction_sets()[0], picture(30, 20), (2100, 2001), Image.Resampling.BOX, 2)


def test_what_is_left_to_pillow() -> None:
    image = picture(8, 8)
    for given, height, width, resample in (
        (image, 4, 4, Image.Resampling.NEAREST),
        (image, 4, 4, 99),
        (image, 0, 4, Image.Resampling.BICUBIC),
        (Image.new("RGB", (0, 8)), 4, 4, Image.Resampling.BICUBIC),
        (image.convert("L"), 4, 4, Image.Resampling.BICUBIC),
        (image.convert("RGBA"), 4, 4, Image.Resampling.BICUBIC),
    ):
        assert resizing.resize(given, height, width, resample) is None


def test_a_resized_picture_is_its_own() -> None:
    image = picture(8, 8)
    image.info["dpi"] = (72, 72)
    made = resizing.resize(image, 6, 5, Image.Resampling.BICUBIC)
    assert made is not None and made.info == {"dpi": (72, 72)}
    before = made.tobytes()
    image.paste(0, (0, 0, 8, 8))
    assert made.tobytes() == before
    made.putpixel((0, 0), (1, 2, 3))
    assert made.getpixel((0, 0)) == (1, 2, 3) and image.info is not made.info


def test_a_pillow_that_resizes_otherwise_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    resizing._order.cache_clear()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(resizing, "_alike", lambda *_: False)
            assert resizing.resize(picture(8, 8), 4, 4, Image.Resampling.BICUBIC) is None
            if resizing.unavailable() != "without vectors of its processor's own it is no faster than Pillow":
                assert resizing.unavailable() == "the installed Pillow resizes in another way"
    finally:
        resizing._order.cache_clear()


def test_a_pillow_that_does_not_show_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Image.Image, "__arrow_c_array__")
    with pytest.raises(NotShared, match="does not show"):
        shared(picture(2, 2))
    assert "before 11.2.1" in str(resizing.unavailable())
