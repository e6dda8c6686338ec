"""The frames of a video that SmolVLM looks at, and how its prompt speaks of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
from PIL import Image

from bestiary.errors import MediaError
from bestiary.media.images import resize
from bestiary.media.processor import Frames
from bestiary_idefics.settings import LARGEST_TILE, Pixels, Sampling
from bestiary_idefics.tiling import fitted
from bestiary_idefics.words import in_words

UNKNOWN_FPS = 24.0
"""Of a video that does not say it; all of its frames are then looked at."""
_LONGEST = 10**9
"""Seconds: thirty years."""
_SKIPPED = 1
"""Seconds at the beginning and at the end of a long video."""


@dataclass(frozen=True)
class Watched:
    """Frames that are looked at."""

    indices: np.ndarray
    """[N] int64, of all frames."""
    seconds: tuple[float, ...]
    """When each is shown."""
    duration: int
    """Whole seconds."""


def watch(video: Frames, sampling: Sampling | None) -> Watched:
    """Evenly spaced frames, by the rule of SmolVLMVideoProcessor; all of them where none can be told by time."""
    count = len(video.frames)
    if video.fps is None:
        seconds = tuple(place / UNKNOWN_FPS for place in range(count))
        return Watched(np.arange(count), seconds, int(seconds[-1]))
    if not count < video.fps * _LONGEST:
        raise MediaError(f"A video of {count} frames, {video.fps} in a second, is too long.", fix="say its true fps")
    duration = count / video.fps
    indices = np.arange(count) if sampling is None else _sampled(count, video.fps, duration, sampling)
    return Watched(indices, tuple(int(place) / video.fps for place in indices), int(duration))


def _sampled(count: int, fps: float, duration: float, sampling: Sampling) -> np.ndarray:
    wanted = max(1, min(round(sampling.fps * duration), sampling.frames))
    first, last = 0, count - 1
    if duration - 2 * _SKIPPED > sampling.frames * sampling.fps:
        first = max(0, int(_SKIPPED * fps))
        last = min(int(count - _SKIPPED * fps), count - 1)
        if first >= last:
            first, last = 0, count - 1
    return np.unique(np.linspace(first, last, wanted, dtype=np.int64))


def frame_pixels(frames: list[Image.Image], settings: Pixels) -> np.ndarray:
    """[N, H, H, 3] uint8: each frame as one tile, by way of the size of pictures, as transformers does it."""
    tile = settings.tile
    if settings.longest_edge is None and settings.size is None and frames[0].size != (tile, tile):
        raise MediaError(
            f"The frames have {frames[0].width} x {frames[0].height} pixels; this model's are not resized, and "
            f"{tile} x {tile} are due."
        )
    if settings.longest_edge is not None:  # which pictures reach first, and are then made smaller
        settings = replace(settings, longest_edge=min(settings.longest_edge, LARGEST_TILE))
    return np.stack([np.asarray(resize(fitted(frame, settings), tile, tile, settings.resample)) for frame in frames])


def introduction(watched: Watched) -> str:
    """The sentence before the frames."""
    count, duration = in_words(len(watched.indices)), timedelta(seconds=watched.duration)
    return f"You are provided the following series of {count} frames from a {duration} [H:MM:SS] video.\n"


def announcement(seconds: float) -> str:
    """The words before a frame."""
    return f"\nFrame from {int(seconds // 60):02d}:{int(seconds % 60):02d}:"
