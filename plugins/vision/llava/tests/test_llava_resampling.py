"""Parts of resized pictures are those that Pillow makes of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary_llava.resampling as resampling
from bestiary.media import images


def picture(height: int, width: int) -> Image.Image:
    random = np.random.default_rng(height * 4099 + width)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_LARGE", 0)
    monkeypatch.setattr(resampling, "_STRIP", 500)


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize(
    ("shape", "size", "crop"),
    [
        ((1, 173), (30, 5190), (30, 30)),
        ((211, 2), (3165, 30), (30, 30)),
        ((40, 90), (31, 69), (30, 28)),
        ((97, 61), (63, 40), (33, 44)),
        ((50, 70), (50, 70), (21, 70)),
        ((3, 3), (200, 200), (7, 9)),
    ],
)
def test_the_centre(shape: Any, size: Any, crop: Any, resample: int) -> None:
    image = picture(*shape)
    whole = images.centre_crop(images.resize(image, *size, resample), *crop)
    assert np.array_equal(resampling.resized_centre(image, size, crop, resample), whole)


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (60, 1), (33, 20), (45, 91), (92, 45), (30, 30)])
def test_the_square(shape: Any, resample: int) -> None:
    image, colour, longest = picture(*shape), (122, 116, 104), max(shape)
    for side in (30, 17):
        whole = images.resize(images.padded(image, longest, longest, colour), side, side, resample)
        assert np.array_equal(resampling.resized_square(image, side, colour, resample), whole)
