"""What processors do with pictures, in NumPy and Pillow, so that the numbers are those of transformers' PIL classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
from PIL import Image

from bestiary.kernels import choose_one, wish
from bestiary.records import resolve
from bestiary.registry import default_registry

RESAMPLING = {resampling.value: resampling for resampling in Image.Resampling}
"""By the numbers that preprocessor_config.json has as `resample`."""


def resize(image: Image.Image, height: int, width: int, resample: int = Image.Resampling.BICUBIC) -> Image.Image:
    """The picture in another size, with the pixels that Pillow makes; itself where it has that size already."""
    if image.size == (width, height):
        return image
    resampling, fast = RESAMPLING[resample], _fast()
    made = None if fast is None else fast(image, height, width, resampling)
    return image.resize((width, height), resampling) if made is None else made


@cache
def _fast() -> Callable[[Image.Image, int, int, int], Image.Image | None] | None:
    """A plugin's operation "resize": to the same pixels, or None where Pillow is to do it.

    Asked when the first picture is resized, with what the environment says of kernels.
    """
    registry = default_registry()
    backend = choose_one(registry, "resize", "uint8", "cpu", wish(None, registry)).backend
    return None if backend is None else resolve(backend.function)


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
        made[..., channel, :, :] = plane
    scale_colours(made, mean, std, scale)
    return made


def scale_colours(values: np.ndarray, mean: Sequence[float], std: Sequence[float], scale: float) -> None:
    """(value * scale - mean) / std in place, of float32 [..., 3, A, B].

    Copied to float32 first and then changed in place, for arithmetic that also converts takes ten times as long.
    """
    by, less = np.array([[scale / each for each in std], [a / b for a, b in zip(mean, std, strict=True)]], np.float32)
    values *= by[:, None, None]
    values -= less[:, None, None]


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
