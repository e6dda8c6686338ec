"""Pictures become patches: resized to a whole number of rows for the language model, and cut."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from bestiary.errors import MediaError
from bestiary.media.images import resize, scale_colours
from bestiary_qwen_vl.grid import Grid
from bestiary_qwen_vl.settings import PictureSettings

_RATIO = 200
"""Of the longer side to the shorter."""


def smart_size(height: int, width: int, factor: int, least: int, most: int) -> tuple[int, int]:
    """Height and width as multiples of `factor`, of so many pixels, near to the shape of the picture.

    The rule of Qwen2-VL's own tools.  Raises MediaError for a picture that is too long.
    """
    if max(height, width) > _RATIO * min(height, width):
        raise MediaError(
            f"The picture has {width} x {height} pixels: one side is more than {_RATIO} times the other.",
            fix="cut it into pieces",
        )
    high, wide = round(height / factor) * factor, round(width / factor) * factor
    if high * wide > most:
        shrink = math.sqrt(height * width / most)
        return tuple(max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width))  # type: ignore[return-value]
    if high * wide < least:
        grow = math.sqrt(least / (height * width))
        return tuple(math.ceil(side * grow / factor) * factor for side in (height, width))  # type: ignore[return-value]
    return high, wide


def cut(frames: Sequence[Image.Image], settings: PictureSettings, most: int | None = None) -> tuple[np.ndarray, Grid]:
    """Frames of one size -> patches [P, 3 * moments * pixels] float32, in the order of `bestiary_qwen_vl.grid`.

    The last frame is repeated where they do not fill the last patch.  `most` is in place of that of the settings.
    """
    s = settings
    frames = [_fitted(frame, s, s.most if most is None else most) for frame in frames]
    grid = Grid(-(-len(frames) // s.moments), frames[0].height // s.patch, frames[0].width // s.patch)
    made = np.empty((grid.time, grid.height * grid.width, 3, s.moments, s.patch * s.patch), np.float32)
    numbers = np.empty(0, np.float32)
    for place in range(grid.time * s.moments):
        if place < len(frames):
            numbers = _in_order(np.asarray(frames[place]), grid, s).astype(np.float32)
            scale_colours(numbers, s.mean, s.std, s.scale)
        made[place // s.moments, :, :, place % s.moments] = numbers[..., 0, :]
    return made.reshape(grid.patches, -1), grid


def _in_order(pixels: np.ndarray, grid: Grid, s: PictureSettings) -> np.ndarray:
    """A frame [height, width, 3] -> its patches [P, 3, 1, pixels]: those of a row of the model lie together."""
    high, wide = grid.height // s.merge, grid.width // s.merge
    squares = pixels.reshape(high, s.merge, s.patch, wide, s.merge, s.patch, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    return squares.reshape(-1, 3, 1, s.patch * s.patch)


def _fitted(frame: Image.Image, s: PictureSettings, most: int) -> Image.Image:
    if s.resize:
        return resize(frame, *smart_size(frame.height, frame.width, s.factor, s.least, most), s.resample)
    if frame.height % s.factor or frame.width % s.factor:
        raise MediaError(
            f"The picture has {frame.width} x {frame.height} pixels; multiples of {s.factor} are due.",
            fix="resize it, for the model's processor is not to do so (do_resize)",
        )
    return frame
