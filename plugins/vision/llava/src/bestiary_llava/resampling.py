"""Resizing where the whole result would be far larger than what is looked at: the same pixels, without the rest.

Pillow resizes in two passes with coefficients of 22 bits and whole numbers between the passes (libImaging/Resample.c):
whoever keeps to that gets its numbers.  Along rows it goes first, or in later versions where height shrinks more than
width second; here both change alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from bestiary.media import images

_BITS = 22
_LARGE = 1 << 24
"""Pixels that Pillow makes in one piece."""
_STRIP = 1 << 22
"""Pixels of a strip of a picture."""


def resized_centre(image: Image.Image, size: tuple[int, int], crop: tuple[int, int], resample: int) -> Image.Image:
    """`images.centre_crop` of `images.resize` to nearly the same shape; sizes are heights and widths.

    A picture of 1 x 4000 pixels whose shortest edge becomes 336 has 450 million, and of these 336 x 336 are wanted.
    """
    if size[0] * size[1] <= _LARGE:
        return images.centre_crop(images.resize(image, *size, resample), *crop)
    pixels = np.asarray(image)
    for axis, out, wanted in ((1, size[1], crop[1]), (0, size[0], crop[0])):
        first = max(0, (out - wanted) // 2)
        pixels = _pass(pixels, axis, out, first, min(out, first + wanted), resample)
    return images.centre_crop(Image.fromarray(pixels), *crop)


def resized_square(image: Image.Image, side: int, colour: tuple[int, int, int], resample: int) -> Image.Image:
    """The picture in the middle of the smallest square around it, resized; the large square itself is not made."""
    longest = max(image.size)
    if longest**2 <= _LARGE:
        return images.resize(images.padded(image, longest, longest, colour), side, side, resample)
    narrow = Image.new("RGB", (side, longest), colour)
    above, count = (longest - image.height) // 2, max(1, _STRIP // longest)
    for top in range(0, image.height, count):
        strip = image.crop((0, top, image.width, min(top + count, image.height)))
        strip = images.padded(strip, strip.height, longest, colour)
        narrow.paste(images.resize(strip, strip.height, side, resample), (0, above + top))
    return images.resize(narrow, side, side, resample)


def _pass(pixels: np.ndarray, axis: int, out: int, first: int, end: int, resample: int) -> np.ndarray:
    """pixels [H, W, 3] uint8, of which one axis is resized to `out`, and of that [first, end) is made."""
    size, moved = pixels.shape[axis], np.moveaxis(pixels, axis, 0)
    if out == size:
        return np.moveaxis(moved[first:end], 0, axis)
    if resample == Image.Resampling.NEAREST:
        steps = np.full(end, size / out)
        steps[0] /= 2
        places = np.cumsum(steps)[first:].astype(np.int64)  # Pillow adds up, too, and rounds on its way
        return np.moveaxis(moved[np.minimum(places, size - 1)], 0, axis)
    shape, support = _FILTERS[resample]
    scale = size / out
    stretch = max(scale, 1.0)
    made = np.empty((end - first, *moved.shape[1:]), np.uint8)
    for place in range(first, end):
        centre = (place + 0.5) * scale
        low = max(0, int(centre - support * stretch + 0.5))
        high = min(size, int(centre + support * stretch + 0.5))
        weights = [shape((at - centre + 0.5) / stretch) for at in range(low, high)]
        total = math.fsum(weights)
        fixed = np.array([round(weight / total * (1 << _BITS)) for weight in weights], np.int64)
        summed = np.tensordot(fixed, moved[low:high].astype(np.int64), 1) + (1 << _BITS - 1)
        made[place - first] = np.clip(summed >> _BITS, 0, 255)
    return np.moveaxis(made, 0, axis)


def _bilinear(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _bicubic(x: float) -> float:
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0 if x < 2.0 else 0.0


def _sinc(x: float) -> float:
    return 1.0 if x == 0.0 else math.sin(math.pi * x) / (math.pi * x)


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


def _hamming(x: float) -> float:
    return _sinc(x) * (0.54 + 0.46 * math.cos(math.pi * x)) if abs(x) < 1.0 else 0.0


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


_FILTERS: dict[int, tuple[Callable[[float], float], float]] = {
    Image.Resampling.BILINEAR: (_bilinear, 1.0),
    Image.Resampling.BICUBIC: (_bicubic, 2.0),
    Image.Resampling.LANCZOS: (_lanczos, 3.0),
    Image.Resampling.HAMMING: (_hamming, 1.0),
    Image.Resampling.BOX: (_box, 0.5),
}
"""By the numbers of `Image.Resampling`: a shape, and how far it reaches."""
