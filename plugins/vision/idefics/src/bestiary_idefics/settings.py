"""What the processor files of a checkpoint say, checked.

In order: `image_processor` and `video_processor` inside processor_config.json (transformers 5), video_preprocessor_
config.json for videos, preprocessor_config.json; what none of them says is what transformers' classes take for granted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.config import read_json
from bestiary.errors import ConfigError, shown
from bestiary.media.images import RESAMPLING
from bestiary.protocols import Repository

LARGEST_TILE = 4096
_LANCZOS = 1
_LARGEST_EDGE = 1 << 16
_MOST_FRAMES = 1 << 20
_LEAST_STD = 1e-6


@dataclass(frozen=True)
class Pixels:
    """What is done to every picture and frame."""

    longest_edge: int | None
    """To which the longer side is brought; None: the size is kept, or is `size`."""
    size: tuple[int, int] | None
    """Height and width in place of it."""
    tile: int
    """Pixels of a side of what the tower sees (`max_image_size`)."""
    resample: int
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are looked at."""

    frames: int
    """At most."""
    fps: float
    """In a second."""


@dataclass(frozen=True)
class Settings:
    image: Pixels
    splitting: bool
    """Whether a picture is cut into tiles, beside being seen as a whole."""
    video: Pixels
    sampling: Sampling | None
    """None: all frames are looked at."""
    rows: int | None
    """Tokens that stand for a tile (`image_seq_len`), where that is said."""
    marks: Mapping[str, str]
    """Texts of tokens by name (`image_token`), where tokenizer_config.json names them."""


def read_settings(repository: Repository, carried: object = None) -> Settings:
    """Raises ConfigError for values that cannot be.

    `carried` is what a weight file says in place of preprocessor_config.json.
    """
    whole = _read(repository, "processor_config.json")
    pictures = whole.part("image_processor") or _read(repository, "preprocessor_config.json", carried)
    videos = whole.part("video_processor")
    if videos is None:
        named = "video_preprocessor_config.json"
        videos = _read(repository, named) if named in repository.files() else pictures
    return Settings(
        _pixels(pictures),
        pictures.flag("do_image_splitting", True),
        _pixels(_sized(videos)),
        _sampling(videos),
        whole.whole("image_seq_len", None, 1, _LARGEST_EDGE),
        _marks(_read(repository, "tokenizer_config.json")),
    )


class _Values:
    """A JSON object from a stranger; null is as good as absent."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = {name: value for name, value in values.items() if value is not None}
        self.where = where

    def part(self, name: str) -> _Values | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong(name, "an object")
        return _Values(value, f"{self.where}, {name}")

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def whole(self, name: str, default: int | None, least: int, most: int) -> int | None:
        value = self.values.get(name, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(name, f"a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: float, least: float, most: float) -> float:
        value = self.values.get(name, default)
        if not _is_number(value, most) or value < least:
            raise self.wrong(name, f"a number from {least} to {most}")
        return float(value)

    def channels(self, name: str, default: float) -> tuple[float, float, float]:
        """One number for each of red, green and blue, or one for all."""
        value = self.values.get(name, default)
        each = value if isinstance(value, list | tuple) else [value] * 3
        if len(each) != 3 or not all(_is_number(number, 1e6) for number in each):
            raise self.wrong(name, "three numbers")
        return float(each[0]), float(each[1]), float(each[2])

    def wrong(self, name: str, due: str) -> ConfigError:
        return ConfigError(f'"{name}" is {shown(self.values.get(name))}; {due} is due.', where=self.where)


def _read(repository: Repository, name: str, otherwise: object = None) -> _Values:
    known = otherwise if isinstance(otherwise, Mapping) else {}
    values = read_json(repository.path(name)) if name in repository.files() else known
    return _Values(values, f"{repository.origin}: {name}")


def _pixels(given: _Values) -> Pixels:
    longest, size = _size(given) if given.flag("do_resize", True) else (None, None)
    tile_part = given.part("max_image_size")
    tile = 364 if tile_part is None else tile_part.whole("longest_edge", None, 1, LARGEST_TILE)
    if tile is None:
        raise given.wrong("max_image_size", 'an object with "longest_edge"')
    resample = given.whole("resample", _LANCZOS, min(RESAMPLING), max(RESAMPLING))
    assert resample is not None
    mean, std = given.channels("image_mean", 0.5), given.channels("image_std", 0.5)
    if not all(abs(number) >= _LEAST_STD for number in std):
        raise given.wrong("image_std", f"three numbers of at least {_LEAST_STD}")
    if not given.flag("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    scale = given.number("rescale_factor", 1 / 255, -1e6, 1e6)
    return Pixels(longest, size, tile, resample, scale if given.flag("do_rescale", True) else 1.0, mean, std)


def _size(given: _Values) -> tuple[int | None, tuple[int, int] | None]:
    """`longest_edge`, or height and width."""
    part = given.part("size")
    if part is None:
        return 4 * 364, None
    longest = part.whole("longest_edge", None, 1, _LARGEST_EDGE)
    if longest is not None:
        return longest, None
    height, width = (part.whole(name, None, 1, LARGEST_TILE) for name in ("height", "width"))
    if height is None or width is None:
        raise given.wrong("size", 'an object with "longest_edge", or "height" and "width"')
    return None, (height, width)


def _sized(given: _Values) -> _Values:
    """The values of a video processor, which may have the size in `video_sampling` alone."""
    sampling = given.part("video_sampling")
    if sampling is None or "size" in given.values or "video_size" not in sampling.values:
        return given
    return _Values({**given.values, "size": sampling.values["video_size"]}, given.where)


def _sampling(given: _Values) -> Sampling | None:
    """`video_sampling` of SmolVLM2, or the keys that other video processors have for the same."""
    stated = given.part("video_sampling")
    names = ("num_frames", "fps") if stated is None else ("max_frames", "fps")
    source = stated or given
    frames = source.whole(names[0], None, 1, _MOST_FRAMES)
    if frames is None or "fps" not in source.values:
        if stated is not None:
            raise given.wrong("video_sampling", 'an object with "max_frames" and "fps"')
        return None
    return Sampling(frames, source.number(names[1], 1.0, 1e-6, 1000.0))


def _marks(given: _Values) -> dict[str, str]:
    """Names of tokens: those of `extra_special_tokens`, where it is an object, and of the file itself."""
    extra = given.values.get("extra_special_tokens")
    named = {**given.values, **extra} if isinstance(extra, Mapping) else given.values
    made = {}
    for name in ("fake_image_token", "image_token", "global_image_token", "video_token"):
        value = named.get(name)
        text = value.get("content") if isinstance(value, Mapping) else value
        if text is None:
            continue
        if not isinstance(text, str) or not 0 < len(text) <= 100:
            raise ConfigError(f'"{name}" is {shown(value)}; a text is due.', where=given.where)
        made[name] = text
    return made


def _is_number(value: Any, most: float) -> bool:
    """Not NaN, which is in no interval, and not an integer that no float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -most <= value <= most
