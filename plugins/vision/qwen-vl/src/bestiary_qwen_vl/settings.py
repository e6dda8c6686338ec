"""How pictures and videos become patches, by the files of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from bestiary.config import Config
from bestiary.media.settings import Colours, Settings, media_settings
from bestiary.protocols import Repository

_PIXELS = 1 << 26
"""No honest picture is made larger than this."""
_FRAMES = 1 << 16
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class PictureSettings:
    """How a picture, or each frame of a video, becomes patches."""

    resize: bool
    resample: int
    least: int
    """Pixels."""
    most: int
    mean: Colours
    std: Colours
    scale: float
    patch: int
    """Pixels on a patch's side."""
    moments: int
    """Frames in a patch."""
    merge: int
    """Patches on the side of what becomes one row."""

    @property
    def factor(self) -> int:
        """Pixels on the side of what becomes one row."""
        return self.patch * self.merge


@dataclass(frozen=True)
class VideoSettings:
    """Which frames of a video are taken, and how each is prepared."""

    picture: PictureSettings
    sample: bool
    """Whether frames are left out of a video that has more than `fps` in a second."""
    fps: float
    """That are looked at; also what a video has where nobody says."""
    count: int | None
    """Frames that are looked at, whatever the time between them; None: `fps` decides."""
    least_frames: int
    most_frames: int
    total_pixels: int | None
    """Of all frames, where they are to share them."""


def image_settings(repository: Repository, config: Config) -> PictureSettings:
    """Raises ConfigError for values that cannot be."""
    stated = media_settings(repository, config, "image_processor", ("preprocessor_config.json",))
    return _picture(stated, 56 * 56, 28 * 28 * 1280)


def video_settings(repository: Repository, config: Config) -> VideoSettings:
    """As `image_settings`."""
    names = ("video_preprocessor_config.json", "preprocessor_config.json")
    stated = media_settings(repository, config, "video_processor", names)
    picture = _picture(stated, 128 * 28 * 28, 28 * 28 * 768)
    tokens = stated.whole("max_video_tokens", 128000, 1, _PIXELS)
    return VideoSettings(
        picture,
        stated.flag("do_sample_frames", True),
        stated.number("fps", 2.0, 1e-3, 1000),
        stated.whole("num_frames", 1, 1, _FRAMES) if "num_frames" in stated else None,
        stated.whole("min_frames", 4, 1, _FRAMES),
        stated.whole("max_frames", 768, 1, _FRAMES),
        int(tokens * picture.factor**2 * 0.9) if stated.flag("cap_pixels_per_frame", False) else None,
    )


def _picture(stated: Settings, least: int, most: int) -> PictureSettings:
    """`least` and `most` pixels are what the class takes for granted."""
    mean, std, scale = stated.scaling(_MEAN, _STD)
    if scale <= 0:
        raise stated.wrong("rescale_factor", "a positive number")
    least = _pixels(stated, "min_pixels", "shortest_edge", least, 1)
    return PictureSettings(
        stated.flag("do_resize", True),
        stated.resample(3),
        least,
        _pixels(stated, "max_pixels", "longest_edge", most, least),
        mean,
        std,
        scale,
        stated.whole("patch_size", 14, 1, 256),
        stated.whole("temporal_patch_size", 2, 1, 64),
        stated.whole("merge_size", 2, 1, 64),
    )


def _pixels(stated: Settings, key: str, edge: str, default: int, least: int) -> int:
    """The key itself counts most; a `size`, which must have either, calls the same number of pixels an edge."""
    size = stated.part("size")
    if size is None or key in stated:
        return stated.whole(key, default, least, _PIXELS)
    return size.whole(key if key in size and edge not in size else edge, 0, least, _PIXELS)
