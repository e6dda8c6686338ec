"""Pictures become patches: resized to a whole number of rows for the language model, and cut."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from bestiary.errors import MediaError
from bestiary.media.images import normalise_plane, resize
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
    frames += [frames[-1]] * (-len(frames) % s.moments)
    grid = Grid(len(frames) // s.moments, frames[0].height // s.patch, frames[0].width // s.patch)
    still = grid.height * grid.width
    made = np.empty((grid.patches, 3, s.moments, s.patch * s.patch), np.float32)
    for place, frame in enumerate(frames):
        rows = slice(place // s.moments * still, (place // s.moments + 1) * still)
        if place % s.moments and frame is frames[place - 1]:
            made[rows, :, place % s.moments] = made[rows, :, place % s.moments - 1]
            continue
        for channel, plane in enumerate(frame.split()):
            cut_up = _in_order(np.asarray(plane), grid, s)
            normalise_plane(cut_up, s.mean[channel], s.std[channel], s.scale, made[rows, channel, place % s.moments])
    return made.reshape(grid.patches, -1), grid


def _in_order(plane: np.ndarray, grid: Grid, s: PictureSettings) -> np.ndarray:
    """One colour of a frame -> its patches [P, pixels]: those of a row for the language model lie together."""
    high, wide = grid.height // s.merge, grid.width // s.merge
    squares = plane.reshape(high, s.merge, s.patch, wide, s.merge, s.patch).transpose(0, 3, 1, 4, 2, 5)
    return squares.reshape(-1, s.patch * s.patch)


def _fitted(frame: Image.Image, s: PictureSettings, most: int) -> Image.Image:
    if s.resize:
        return resize(frame, *smart_size(frame.height, frame.width, s.factor, s.least, most), s.resample)
    if frame.height % s.factor or frame.width % s.factor:
        raise MediaError(
            f"The picture has {frame.width} x {frame.height} pixels; multiples of {s.factor} are due.",
            fix="resize it, for the model's processor is not to do so (do_resize)",
        )
    return frame
