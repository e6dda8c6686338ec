"""A picture becomes tiles of one size, and a small copy of itself (Idefics3, section 3.1 of arXiv 2408.12637)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bestiary.media.images import resize
from bestiary_idefics.settings import LARGEST_TILE, Pixels


@dataclass(frozen=True)
class Tiles:
    """The tiles of a picture, row by row, and the whole of it last."""

    pixels: np.ndarray
    """[tiles, H, H, 3] uint8."""
    rows: int
    """0 where the picture is seen as a whole only."""
    columns: int


def cut(image: Image.Image, settings: Pixels, splitting: bool) -> Tiles:
    """The tiles of a picture; without `splitting` it is one."""
    tile, resample = settings.tile, settings.resample
    image = fitted(image, settings)
    if not splitting:
        return Tiles(np.asarray(resize(image, tile, tile, resample))[None], 0, 0)
    height, width = _whole_tiles(image.height, image.width, tile)
    image = resize(image, height, width, resample)
    pixels = np.asarray(image)
    if (height, width) == (tile, tile):
        return Tiles(pixels[None], 0, 0)
    rows, columns = height // tile, width // tile
    parts = pixels.reshape(rows, tile, columns, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    whole = np.asarray(resize(image, tile, tile, resample))[None]
    return Tiles(np.concatenate((parts, whole)), rows, columns)


def fitted(image: Image.Image, settings: Pixels) -> Image.Image:
    """The picture in the size that the settings have for pictures of its shape."""
    height, width = image.height, image.width
    if settings.longest_edge is not None:
        height, width = _below(*_to_edge(height, width, settings.longest_edge))
    elif settings.size is not None:
        height, width = settings.size
    return resize(image, height, width, settings.resample)


# Whole numbers come of divisions in floating point, cut off: done in another order they would differ by a pixel.


def _to_edge(height: int, width: int, edge: int) -> tuple[int, int]:
    """The longer side is `edge`, the other even."""
    ratio = width / height
    if width >= height:
        width, height = edge, _even(int(edge / ratio))
    else:
        height, width = edge, _even(int(edge * ratio))
    return max(height, 1), max(width, 1)


def _even(side: int) -> int:
    return side + side % 2


def _below(height: int, width: int) -> tuple[int, int]:
    """No side longer than 4096."""
    ratio = width / height
    if width >= height and width > LARGEST_TILE:
        width, height = LARGEST_TILE, int(LARGEST_TILE / ratio)
    elif height > width and height > LARGEST_TILE:
        height, width = LARGEST_TILE, int(LARGEST_TILE * ratio)
    return max(height, 1), max(width, 1)


def _whole_tiles(height: int, width: int, tile: int) -> tuple[int, int]:
    """Both sides rounded up to tiles: the longer one, then what the ratio makes of the other."""
    ratio = width / height
    if width >= height:
        width = _up(width, tile)
        height = _up(int(width / ratio), tile)
    else:
        height = _up(height, tile)
        width = _up(int(height * ratio), tile)
    return height, width


def _up(side: int, tile: int) -> int:
    return math.ceil(side / tile) * tile
