"""Which frames of a video are looked at."""

from __future__ import annotations

from bestiary.media.processor import Frames
from bestiary_qwen_vl.settings import VideoSettings


def sampled(media: Frames, settings: VideoSettings) -> tuple[list[int], float]:
    """The numbers of the frames, evenly spread over the video, and how many of them make a second.

    Where nobody says how many frames a second of the video has, they are taken for those that are to be looked at,
    as Qwen's own tools (qwen-vl-utils) take a list of pictures.
    """
    total, s = len(media.frames), settings
    count = total
    if s.sample and s.count is not None:
        count = round(s.count / s.picture.moments) * s.picture.moments
    elif s.sample and media.fps is not None:
        wished = total / media.fps * s.fps
        most = min(s.most_frames, total) // s.picture.moments * s.picture.moments
        count = int(min(max(wished, s.least_frames), most)) // s.picture.moments * s.picture.moments
    # A video shorter than a patch is looked at as a whole.
    count = min(count, total) or total
    fps = s.fps if media.fps is None else media.fps
    return [place * total // count for place in range(count)], count / total * fps
