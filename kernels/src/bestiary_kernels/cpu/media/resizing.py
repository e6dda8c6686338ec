"""RGB pictures in another size: Pillow's own arithmetic in whole numbers, on vectors and several threads.

Every pixel is the one that Pillow makes.  It goes along one axis and then along the other, with bytes between; which
comes first shows in a level here and there, and its versions differ.  So it is asked once, with small pictures whose
sizes lie around what decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image

from bestiary_kernels.cpu.library import Library, LibraryMissing, library, packer
from bestiary_kernels.cpu.media.arrow import NotShared, Pixels, shared

RESIZE = 13

SUPPORTS: Mapping[int, float] = MappingProxyType(
    {
        Image.Resampling.LANCZOS: 3.0,
        Image.Resampling.BILINEAR: 1.0,
        Image.Resampling.BICUBIC: 2.0,
        Image.Resampling.BOX: 0.5,
        Image.Resampling.HAMMING: 1.0,
    }
)
"""Filters by Pillow's numbers, and how many pixels to either side they reach; others are left to it."""

Order = Callable[[int, int, int, int], bool]
"""(height, width, new height, new width) -> whether columns are shortened before rows are."""

_LARGEST = 1 << 24
"""Of a side: Pillow counts larger ones in float32."""
_SMALL = 1 << 20
"""Pixels that one thread is done with sooner than another wakes on a busy machine."""
_STRIP = 1 << 18
"""Pixels that are copied at once out of a picture whose memory is in pieces."""

_pack = packer("12q")


def resize(image: Image.Image, height: int, width: int, resample: int) -> Image.Image | None:
    """`image.resize((width, height), resample)`, to the same pixels; None where Pillow has to do it."""
    order = _order()
    if order is None:
        return None
    small = max(image.height * image.width, height * width) < _SMALL
    return resized(library(), image, height, width, resample, order, 1 if small else torch.get_num_threads())


def unavailable() -> str | None:
    """Why it cannot be done here, or None."""
    try:
        instructions = library().instruction_set
        shared(Image.new("RGB", (2, 2)))
    except (LibraryMissing, NotShared) as error:
        return str(error)
    if instructions == "generic":
        return "without vectors of its processor's own it is no faster than Pillow"
    return "the installed Pillow resizes in another way" if _order() is None else None


def resized(
    library: Library, image: Image.Image, height: int, width: int, resample: int, order: Order, threads: int
) -> Image.Image | None:
    """The same with axes in a known order."""
    sides = (image.height, image.width, height, width)
    if image.mode != "RGB" or resample not in SUPPORTS or not all(0 < side < _LARGEST for side in sides):
        return None
    made = Image.new("RGB", (width, height), None)
    try:
        _resize(library, image, shared(made), resample, order, threads)
    except NotShared:  # Pillow keeps more than 16 MB in pieces
        numbers = np.empty((height, width), np.uint32)
        try:
            _resize(library, image, _pixels(numbers), resample, order, threads)
        except NotShared:
            return None
        made = Image.frombytes("RGB", (width, height), numbers.data.cast("B"), "raw", "RGBX", 0, 1)
    made.info = image.info.copy()
    return made


def _resize(library: Library, image: Image.Image, y: Pixels, resample: int, order: Order, threads: int) -> None:
    """Make y of a picture.  Raises NotShared."""
    if image.height == y.rows or image.width == y.columns:
        return _first_pass(library, image, y, image.height == y.rows, resample, threads)
    across = not order(image.height, image.width, y.rows, y.columns)
    between = _pixels(np.empty((image.height, y.columns) if across else (y.rows, image.width), np.uint32))
    _first_pass(library, image, between, across, resample, threads)
    return _pass(library, between, y, not across, resample, threads)


def _first_pass(library: Library, image: Image.Image, y: Pixels, across: bool, resample: int, threads: int) -> None:
    """A pass over a picture.  Raises NotShared."""
    pieces: Iterable[tuple[Pixels, Pixels]]
    try:
        pieces = [(shared(image), y)]
    except NotShared:
        pieces = ((shared(part), place) for part, place in _strips(image, y, across))
    for x, place in pieces:
        _pass(library, x, place, across, resample, threads)


def _strips(image: Image.Image, y: Pixels, across: bool) -> Iterator[tuple[Image.Image, Pixels]]:
    """A picture cut along the axis that a pass goes, and the places of what is made of the parts."""
    length, breadth = (image.height, image.width) if across else (image.width, image.height)
    each = max(1, _STRIP // breadth)
    for start in range(0, length, each):
        end = min(start + each, length)
        if across:
            place = Pixels(y.address + start * y.stride, end - start, y.columns, y.stride, y.owner)
            yield image.crop((0, start, image.width, end)), place
        else:
            place = Pixels(y.address + 4 * start, y.rows, end - start, y.stride, y.owner)
            yield image.crop((start, 0, end, image.height)), place


def _pixels(numbers: np.ndarray) -> Pixels:
    rows, columns = numbers.shape
    return Pixels(numbers.ctypes.data, rows, columns, numbers.strides[0], numbers)


def _pass(library: Library, x: Pixels, y: Pixels, across: bool, resample: int, threads: int) -> None:
    """Make y of x, along rows or along columns; in the other direction they are of one size."""
    before, size = (x.columns, y.columns) if across else (x.rows, y.rows)
    taps = 2 * math.ceil(SUPPORTS[resample] * max(1.0, before / size)) + 1
    spans, weights = np.empty((size, 2), np.int64), np.empty((size, taps), np.float64)
    told = (x.address, x.rows, x.columns, x.stride, int(across), size, resample, taps)
    library.call(RESIZE, _pack(*told, spans.ctypes.data, weights.ctypes.data, y.address, y.stride), threads)


# --- which axis comes first


def rows_first(height: int, width: int, new_height: int, new_width: int) -> bool:
    """The order of Pillow before 13."""
    return False


def by_loss(height: int, width: int, new_height: int, new_width: int) -> bool:
    """That of Pillow 13: columns first where twice as many rows go as columns, or rows go and columns do not."""
    return height - new_height > max(0, 2 * (width - new_width))


_TRIALS = ((40, 30, 27, 24), (40, 30, 28, 24), (40, 30, 39, 37), (30, 40, 36, 47), (23, 50, 11, 21), (70, 20, 9, 11))


@cache
def _order() -> Order | None:
    """The order by which all trials come out as the installed Pillow has them, or None."""
    numbers = np.random.default_rng(0)
    pictures = [
        Image.fromarray(numbers.integers(0, 256, (height, width, 3), np.uint8)) for height, width, _, _ in _TRIALS
    ]
    for order in (by_loss, rows_first):
        if all(
            _alike(picture, height, width, resample, order)
            for picture, (_, _, height, width) in zip(pictures, _TRIALS, strict=True)
            for resample in SUPPORTS
        ):
            return order
    return None


def _alike(picture: Image.Image, height: int, width: int, resample: int, order: Order) -> bool:
    ours = resized(library(), picture, height, width, resample, order, 1)
    theirs = picture.resize((width, height), Image.Resampling(resample))
    return ours is not None and ours.tobytes() == theirs.tobytes()
