"""How pictures and videos become tiles, and which texts stand for them, by the files of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bestiary.config import Config
from bestiary.media.settings import Colours, Settings, media_settings, read_settings
from bestiary.protocols import Repository

MARKS = {
    "fake_image_token": "<fake_token_around_image>",
    "image_token": "<image>",
    "global_image_token": "<global-img>",
    "video_token": "<video>",
}
"""Texts of tokens by name."""
LARGEST_TILE = 4096
_LANCZOS = 1
_LARGEST_EDGE = 1 << 16
_MOST_FRAMES = 1 << 20


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
    mean: Colours
    std: Colours
    scale: float


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are looked at."""

    frames: int
    """At most."""
    fps: float
    """In a second."""


@dataclass(frozen=True)
class ProcessorSettings:
    image: Pixels
    splitting: bool
    """Whether a picture is cut into tiles, beside being seen as a whole."""
    video: Pixels
    sampling: Sampling | None
    """None: all frames are looked at."""
    rows: int | None
    """Tokens that stand for a tile (`image_seq_len`), where that is said."""
    marks: Mapping[str, str]
    """MARKS, or what tokenizer_config.json has in place of them."""


def processor_settings(repository: Repository, config: Config) -> ProcessorSettings:
    """Videos are as pictures where no file has them apart.  Raises ConfigError for values that cannot be."""
    processor, named = read_settings(repository, "processor_config.json"), "video_preprocessor_config.json"
    pictures = videos = media_settings(repository, config, "image_processor", ("preprocessor_config.json",))
    if "video_processor" in processor or named in repository.files():
        videos = media_settings(repository, config, "video_processor", (named,))
    return ProcessorSettings(
        _pixels(pictures),
        pictures.flag("do_image_splitting", True),
        _pixels(_sized(videos)),
        _sampling(videos),
        processor.whole("image_seq_len", 1, 1, _LARGEST_EDGE) if "image_seq_len" in processor else None,
        _marks(read_settings(repository, "tokenizer_config.json")),
    )


def _pixels(stated: Settings) -> Pixels:
    longest, size = _size(stated) if stated.flag("do_resize", True) else (None, None)
    tile = stated.part("max_image_size") or Settings({"longest_edge": 364}, stated.where)
    if "longest_edge" not in tile:
        raise stated.wrong("max_image_size", 'an object with "longest_edge"')
    side = tile.whole("longest_edge", 1, 1, LARGEST_TILE)
    return Pixels(longest, size, side, stated.resample(_LANCZOS), *stated.scaling(0.5, 0.5))


def _size(stated: Settings) -> tuple[int | None, tuple[int, int] | None]:
    """`longest_edge`, or height and width."""
    size = stated.part("size") or Settings({"longest_edge": 4 * 364}, stated.where)
    if "longest_edge" in size:
        return size.whole("longest_edge", 1, 1, _LARGEST_EDGE), None
    if "height" not in size or "width" not in size:
        raise stated.wrong("size", 'an object with "longest_edge", or "height" and "width",')
    return None, (size.whole("height", 1, 1, LARGEST_TILE), size.whole("width", 1, 1, LARGEST_TILE))


def _sized(stated: Settings) -> Settings:
    """The values of a video processor, which may have the size in `video_sampling` alone."""
    sampling = stated.part("video_sampling")
    if sampling is None or "size" in stated or "video_size" not in sampling:
        return stated
    return Settings({**stated.values, "size": sampling.get("video_size")}, stated.where)


def _sampling(stated: Settings) -> Sampling | None:
    """`video_sampling` of SmolVLM2, or the keys that other video processors have for the same."""
    part = stated.part("video_sampling")
    source, key = (stated, "num_frames") if part is None else (part, "max_frames")
    frames = source.whole(key, 1, 1, _MOST_FRAMES)
    if key in source and "fps" in source:
        return Sampling(frames, source.number("fps", 1.0, 1e-6, 1000.0))
    if part is not None:
        raise stated.wrong("video_sampling", 'an object with "max_frames" and "fps"')
    return None


def _marks(stated: Settings) -> dict[str, str]:
    """Those of `extra_special_tokens`, where it is an object, and of the file itself."""
    extra = stated.get("extra_special_tokens")
    named = {**stated.values, **extra} if isinstance(extra, Mapping) else stated.values
    tokens = {name: named.get(name) for name in MARKS}
    texts = {name: token.get("content") if isinstance(token, Mapping) else token for name, token in tokens.items()}
    given = Settings(texts, stated.where)
    return {name: given.text(name, default) for name, default in MARKS.items()}
