"""What processors do with pictures, in NumPy and Pillow, so that the numbers are those of transformers' PIL classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

RESAMPLING = {resampling.value: resampling for resampling in Image.Resampling}
"""By the numbers that preprocessor_config.json has as `resample`."""


def resize(image: Image.Image, height: int, width: int, resample: int = Image.Resampling.BICUBIC) -> Image.Image:
    """The picture in another size; itself where it has that already."""
    if image.size == (width, height):
        return image
    return image.resize((width, height), RESAMPLING[resample])


def normalised(
    image: Image.Image | np.ndarray,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    scale: float = 1 / 255,
) -> np.ndarray:
    """(value * scale - mean) / std of an RGB picture, or of uint8 [..., H, W, 3], as float32 [..., 3, H, W].

    A channel has 256 values, so the formula is computed so often, and the rest is looking it up.
    """
    pixels = np.asarray(image)
    table = _table(tuple(mean), tuple(std), scale)
    made = np.empty((*pixels.shape[:-3], 3, *pixels.shape[-3:-1]), np.float32)
    for channel in range(3):
        np.take(table[channel], pixels[..., channel], out=made[..., channel, :, :], mode="clip")
    return made


@lru_cache(maxsize=64)
def _table(mean: tuple[float, ...], std: tuple[float, ...], scale: float) -> np.ndarray:
    """[3, 256] float32."""
    values = (np.arange(256.0) * scale).astype(np.float32)
    return np.stack([(values - np.float32(m)) / np.float32(s) for m, s in zip(mean, std, strict=True)])


def centre_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle of a picture; what it lacks is black."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def tiles(image: Image.Image, height: int, width: int) -> Iterator[Image.Image]:
    """The picture cut into tiles of this size, row by row; the last of a row or column may be smaller."""
    for top in range(0, image.height, height):
        for left in range(0, image.width, width):
            yield image.crop((left, top, min(left + width, image.width), min(top + height, image.height)))


def padded(image: Image.Image, height: int, width: int, colour: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    """The picture in the middle of a larger one."""
    made = Image.new("RGB", (width, height), colour)
    made.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return made
