"""What the repository's files say of how pictures and videos are prepared.

transformers 5 writes one processor_config.json with a part for each; before that pictures had preprocessor_config.json
and videos video_preprocessor_config.json, or what pictures had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.config import read_json
from bestiary.errors import ConfigError, shown
from bestiary.media.images import RESAMPLING
from bestiary.protocols import Repository
from bestiary_qwen_vl.checking import by_channel, number, truth, whole

_PIXELS = 1 << 26
"""No honest picture is made larger than this."""
_FRAMES = 1 << 16
_CLIP = {
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
_COMMON = {
    **_CLIP,
    "do_resize": True,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
_IMAGE = {**_COMMON, "shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
_VIDEO = {
    **_COMMON,
    "shortest_edge": 128 * 28 * 28,
    "longest_edge": 28 * 28 * 768,
    "do_sample_frames": True,
    "fps": 2.0,
    "min_frames": 4,
    "max_frames": 768,
    "cap_pixels_per_frame": False,
    "max_video_tokens": 128000,
}


@dataclass(frozen=True)
class PictureSettings:
    """How a picture, or each frame of a video, becomes patches."""

    resize: bool
    resample: int
    least: int
    """Pixels."""
    most: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
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


def image_settings(repository: Repository, carried: object = None) -> PictureSettings:
    """Raises ConfigError for values that cannot be.

    `carried` is what a weight file says in place of preprocessor_config.json.
    """
    return _picture(*_read(repository, "image_processor", ("preprocessor_config.json",), carried), _IMAGE)


def video_settings(repository: Repository, carried: object = None) -> VideoSettings:
    """As `image_settings`."""
    names = ("video_preprocessor_config.json", "preprocessor_config.json")
    stated, where = _read(repository, "video_processor", names, carried)
    picture = _picture(stated, where, _VIDEO)
    values = _with_defaults(stated, _VIDEO)
    tokens = whole(values, "max_video_tokens", 1, _PIXELS, where)
    capped = truth(values, "cap_pixels_per_frame", where)
    return VideoSettings(
        picture,
        truth(values, "do_sample_frames", where),
        number(values, "fps", 1e-3, 1000, where),
        whole(values, "num_frames", 1, _FRAMES, where) if values.get("num_frames") is not None else None,
        whole(values, "min_frames", 1, _FRAMES, where),
        whole(values, "max_frames", 1, _FRAMES, where),
        int(tokens * picture.factor**2 * 0.9) if capped else None,
    )


def _read(repository: Repository, part: str, names: tuple[str, ...], carried: object) -> tuple[Mapping[str, Any], str]:
    """The values, and where they were read."""
    files = repository.files()
    if "processor_config.json" in files:
        path = repository.path("processor_config.json")
        found = read_json(path).get(part)
        if isinstance(found, Mapping):
            return found, f"{path} ({part})"
    name = next((name for name in names if name in files), None)
    if name is None:
        return carried if isinstance(carried, Mapping) else {}, repository.origin
    path = repository.path(name)
    return read_json(path), str(path)


def _with_defaults(stated: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {**defaults, **{key: value for key, value in stated.items() if value is not None}}


def _picture(stated: Mapping[str, Any], where: str, defaults: Mapping[str, Any]) -> PictureSettings:
    values = {**_with_defaults(stated, defaults), **_bounds(stated, where, defaults)}
    least = whole(values, "shortest_edge", 1, _PIXELS, where)
    most = whole(values, "longest_edge", least, _PIXELS, where)
    normalise = truth(values, "do_normalize", where)
    return PictureSettings(
        truth(values, "do_resize", where),
        whole(values, "resample", 0, max(RESAMPLING), where),
        least,
        most,
        by_channel(values, "image_mean", where, positive=False) if normalise else (0.0, 0.0, 0.0),
        by_channel(values, "image_std", where, positive=True) if normalise else (1.0, 1.0, 1.0),
        number(values, "rescale_factor", 1e-9, 1e3, where) if truth(values, "do_rescale", where) else 1.0,
        whole(values, "patch_size", 1, 256, where),
        whole(values, "temporal_patch_size", 1, 64, where),
        whole(values, "merge_size", 1, 64, where),
    )


def _bounds(stated: Mapping[str, Any], where: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The pixels of a picture, which `size` calls edges: `min_pixels` and `max_pixels` count more."""
    size = stated.get("size")
    if size is None:
        size = {key: defaults[key] for key in ("shortest_edge", "longest_edge")}
    if not isinstance(size, Mapping):
        raise ConfigError(f'"size" is {shown(size)}; an object is due.', where=where)
    made = {}
    for edge, pixels in (("shortest_edge", "min_pixels"), ("longest_edge", "max_pixels")):
        given = (stated.get(pixels), size.get(edge), size.get(pixels))
        made[edge] = next((value for value in given if value is not None), None)
        if made[edge] is None:
            raise ConfigError(f'"size" has no "{edge}".', where=where, fix="it is the number of pixels of a picture")
    return made
