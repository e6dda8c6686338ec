"""How pictures become what the tower of Gemma 3 sees, by the files of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bestiary.config import Config
from bestiary.errors import ConfigError
from bestiary.media import settings
from bestiary.media.settings import Colours, media_settings, read_settings
from bestiary.protocols import Repository
from bestiary_gemma3.pan_and_scan import PanAndScan

_MOST_CROPS = 64
"""Each is a whole picture for the tower, and 256 tokens of the prompt."""


@dataclass(frozen=True)
class Settings:
    """How pictures become numbers."""

    size: int
    """Pixels of a side, of the square that the tower sees."""
    tokens: int
    """For the picture, and for each of its parts."""
    resize: bool
    resample: int
    mean: Colours
    std: Colours
    scale: float
    pan_and_scan: PanAndScan | None


def picture_settings(repository: Repository, config: Config, size: int, tokens: int) -> Settings:
    """Of a model that sees squares of `size` pixels as `tokens` rows.  Raises ConfigError, also where they disagree."""
    processor = read_settings(repository, "processor_config.json")
    if processor.whole("image_seq_length", tokens, 1, 1 << 20) != tokens:
        raise ConfigError(
            f'"image_seq_length" is {processor.get("image_seq_length")}; the model makes {tokens} tokens of a picture.',
            where=processor.where,
        )
    stated = media_settings(repository, config, "image_processor", ("preprocessor_config.json",))
    resize = stated.flag("do_resize", True)
    if resize:
        _check_size(stated, size)
    return Settings(
        size, tokens, resize, stated.resample(2), *stated.scaling(0.5, 0.5), pan_and_scan=_pan_and_scan(stated)
    )


def _check_size(stated: settings.Settings, size: int) -> None:
    value = stated.get("size", size)
    sides = [value.get(name) for name in ("height", "width")] if isinstance(value, Mapping) else [value] * 2
    if any(isinstance(side, bool) or side != size for side in sides):
        raise stated.wrong("size", f"a height and a width of {size} pixels, of the squares that the tower sees,")


def _pan_and_scan(stated: settings.Settings) -> PanAndScan | None:
    """None where pictures are not cut.  The settings are checked in any case."""
    made = PanAndScan(
        stated.whole("pan_and_scan_min_crop_size", 256, 1, 1 << 20),
        stated.whole("pan_and_scan_max_num_crops", 4, 1, _MOST_CROPS),
        stated.number("pan_and_scan_min_ratio_to_activate", 1.2, 0.0, 1e6),
    )
    return made if stated.flag("do_pan_and_scan", False) else None
