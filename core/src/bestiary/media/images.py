"""What processors do with pictures, in NumPy and Pillow, so that the numbers are those of transformers' PIL classes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

RESAMPLING = {resampling.value: resampling for resampling in Image.Resampling}
"""By the numbers that preprocessor_config.json has as `resample`."""

MANY = 1 << 19
"""Pixels from which on several threads are faster than one."""


def resize(image: Image.Image, height: int, width: int, resample: int = Image.Resampling.BICUBIC) -> Image.Image:
    """The picture in another size; itself where it has that already.

    Pillow works in one thread and lets others run meanwhile, so the colours of a large picture are resized beside each
    other.  Parts of it would not give what the whole gives: which pass comes first depends on the sizes.
    """
    if image.size == (width, height):
        return image
    if width * height < MANY or image.mode != "RGB" or (count := _processors()) == 1:
        return image.resize((width, height), RESAMPLING[resample])
    with ThreadPoolExecutor(min(3, count)) as pool:
        planes = pool.map(lambda plane: plane.resize((width, height), RESAMPLING[resample]), image.split())
        return Image.merge("RGB", list(planes))


def _processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def normalised(
    image: Image.Image | np.ndarray,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    scale: float = 1 / 255,
) -> np.ndarray:
    """(value * scale - mean) / std of an RGB picture, or of uint8 [..., H, W, 3], as float32 [..., 3, H, W]."""
    if isinstance(image, Image.Image):
        planes = [np.asarray(plane) for plane in image.split()]
    else:
        planes = [image[..., channel] for channel in range(3)]
    made = np.empty((*planes[0].shape[:-2], 3, *planes[0].shape[-2:]), np.float32)
    for channel, plane in enumerate(planes):
        normalise_plane(plane, mean[channel], std[channel], scale, made[..., channel, :, :])
    return made


def normalise_plane(plane: np.ndarray, mean: float, std: float, scale: float, out: np.ndarray) -> None:
    """One colour, uint8 [...], to `out` [...] float32."""
    np.multiply(plane, np.float32(scale / std), out=out, dtype=np.float32, casting="unsafe")
    out -= np.float32(mean / std)


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
