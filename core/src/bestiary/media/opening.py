"""A source of any kind becomes RGB frames.

Of pictures: a path or URL, a data URL, bytes, an open file, a NumPy array, a PIL picture.  Of videos: a list of these,
an animated file by any of these ways, an array of frames, or a mapping that also says how many frames make a second.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from bestiary.errors import MediaError, shown
from bestiary.media.decoding import check_size, check_video, decode_picture, decode_video, play, take, upright
from bestiary.media.limits import DEFAULT, MediaLimits
from bestiary.media.processor import Frames
from bestiary.media.reading import read

_MAPPING_FIX = 'write {"frames": [...], "fps": 2.0}'


def open_media(source: Any, kind: str, limits: MediaLimits = DEFAULT) -> Frames:
    """A picture or video, upright and in RGB; safe in threads.

    `kind` is "image" or "video".  Pictures have the pixel values of transformers' `load_image`: turned as EXIF says,
    alpha dropped, colour profiles not applied.  An animated file is as "image" its first frame.

    Raises MediaError, and nothing else, whatever the source holds.
    """
    deadline = time.monotonic() + limits.seconds
    if kind == "image":
        return Frames("image", (_picture(source, limits, deadline),))
    if kind == "video":
        return _video(source, limits, deadline)
    raise MediaError(f"Media of the kind {shown(kind)} are not opened.", fix='the kinds are "image" and "video"')


def _picture(source: Any, limits: MediaLimits, deadline: float) -> Image.Image:
    if isinstance(source, Image.Image):
        return take(source, limits, "a PIL picture")
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    if isinstance(source, list | tuple | Mapping):
        what = f"A {type(source).__name__} is not one picture."
        raise MediaError(what, fix='give its pictures one by one, or open them as "video"')
    data, where = read(source, limits, deadline)
    return decode_picture(data, limits, where)


def _video(source: Any, limits: MediaLimits, deadline: float) -> Frames:
    if isinstance(source, Mapping):
        if "frames" not in source or set(source) - {"frames", "fps"} or isinstance(source["frames"], Mapping):
            raise MediaError("The mapping is not that of a video.", fix=_MAPPING_FIX)
        made = _video(source["frames"], limits, deadline)
        return replace(made, fps=_fps(source["fps"])) if source.get("fps") is not None else made
    if isinstance(source, Image.Image):
        return play(source, limits, "a PIL picture")
    if isinstance(source, np.ndarray):
        return _from_arrays(source, limits)
    if isinstance(source, list | tuple):
        return _from_pictures(source, limits, deadline)
    data, where = read(source, limits, deadline)
    return decode_video(data, limits, where)


def _from_pictures(sources: Sequence[Any], limits: MediaLimits, deadline: float) -> Frames:
    check_video(len(sources), 0, 0, limits, "a list of frames")
    frames: list[Image.Image] = []
    for source in sources:
        frames.append(_picture(source, limits, deadline))
        if frames[-1].size != frames[0].size:
            sizes = f"{frames[0].width} x {frames[0].height} and {frames[-1].width} x {frames[-1].height}"
            raise MediaError(f"The frames of the video differ in size: {sizes}.", where="a list of frames")
        # All have one size, so that the first tells what they will take.
        check_video(len(sources), *frames[0].size, limits, "a list of frames")
    if not frames:
        raise MediaError("The video has no frames.", where="a list of frames")
    return Frames("video", tuple(frames))


def _from_array(array: np.ndarray, limits: MediaLimits) -> Image.Image:
    where = f"a NumPy array {list(array.shape)} of {array.dtype}"
    if array.dtype != np.uint8:
        raise MediaError(
            "The array is not of uint8.",
            where=where,
            fix="scale the values to 0..255 and round: (array * 255).round().astype(numpy.uint8)",
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        what = "The array is not [height, width], nor with 1, 3 or 4 channels last."
        raise MediaError(what, where=where, fix="move the channels to the end: array.transpose(1, 2, 0)")
    if array.size == 0:
        raise MediaError("The array is empty.", where=where)
    check_size(array.shape[1], array.shape[0], limits, where)
    return upright(Image.fromarray(np.ascontiguousarray(array)), limits, where)


def _from_arrays(array: np.ndarray, limits: MediaLimits) -> Frames:
    where = f"a NumPy array {list(array.shape)} of {array.dtype}"
    if array.ndim != 4 or array.shape[3] != 3 or array.size == 0:
        raise MediaError("The array is not [frames, height, width, 3].", where=where)
    check_video(array.shape[0], array.shape[2], array.shape[1], limits, where)
    return Frames("video", tuple(_from_array(frame, limits) for frame in array))


def _fps(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.001 <= value <= 1000:
        raise MediaError(f"fps is {shown(value)}; a number from 0.001 to 1000 is due.", fix=_MAPPING_FIX)
    return float(value)
