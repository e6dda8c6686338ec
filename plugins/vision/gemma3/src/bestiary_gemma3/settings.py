"""What preprocessor_config.json and processor_config.json say of pictures, checked.

What they say of pan and scan counts here; transformers' Gemma3Processor puts its own defaults before it, and cuts only
the pictures of those who ask for it in the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.config import read_json
from bestiary.errors import ConfigError, shown
from bestiary.media.images import RESAMPLING
from bestiary.protocols import Repository
from bestiary_gemma3.pan_and_scan import PanAndScan

_MOST_CROPS = 64
"""Each is a whole picture for the tower, and 256 tokens of the prompt."""

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Settings:
    """How pictures become numbers; null in a file, and what it leaves out, is what transformers' class has."""

    size: int
    """Pixels of a side, of the square that the tower sees."""
    tokens: int
    """For the picture, and for each of its parts."""
    resize: bool
    resample: int
    scale: float
    mean: Channels
    std: Channels
    pan_and_scan: PanAndScan | None


def read_settings(repository: Repository, size: int, tokens: int, carried: object = None) -> Settings:
    """Of a model that sees squares of `size` pixels as `tokens` rows.  Raises ConfigError, also where they disagree.

    `carried` is what a weight file says in place of preprocessor_config.json.
    """
    processor, pictures = _Values.of(repository, "processor_config.json"), None
    nested = processor.values.get("image_processor")
    if nested is not None:  # as transformers 5 writes it; where it is, the other file does not count
        if not isinstance(nested, Mapping):
            raise processor.error("image_processor", "an object is due")
        pictures = _Values(nested, f"{processor.origin}, image_processor")
    pictures = pictures or _Values.of(repository, "preprocessor_config.json", carried)
    stated = processor.whole("image_seq_length", tokens, 1, 1 << 20)
    if stated != tokens:
        raise processor.error("image_seq_length", f"the model makes {tokens} tokens of a picture")
    resize = pictures.flag("do_resize", True)
    if resize:
        pictures.check_size(size)
    normalize = pictures.flag("do_normalize", True)
    return Settings(
        size,
        tokens,
        resize,
        pictures.whole("resample", 2, min(RESAMPLING), max(RESAMPLING)),
        pictures.number("rescale_factor", 1 / 255, -1e6, 1e6) if pictures.flag("do_rescale", True) else 1.0,
        pictures.channels("image_mean", 0.5, 0.0) if normalize else (0.0, 0.0, 0.0),
        pictures.channels("image_std", 0.5, 1e-6) if normalize else (1.0, 1.0, 1.0),
        pictures.pan_and_scan(),
    )


@dataclass(frozen=True)
class _Values:
    """A JSON object of strangers."""

    values: Mapping[str, Any]
    origin: str

    @classmethod
    def of(cls, repository: Repository, name: str, otherwise: object = None) -> _Values:
        known = otherwise if isinstance(otherwise, Mapping) else {}
        values = read_json(repository.path(name)) if name in repository.files() else known
        return cls(values, f"{repository.origin}: {name}")

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false is due")
        return value

    def whole(self, key: str, default: int, least: int, most: int) -> int:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.error(key, f"a whole number from {least} to {most} is due")
        return value

    def number(self, key: str, default: float, least: float, most: float) -> float:
        value = self._get(key, default)
        if not _is_number(value) or not least <= value <= most:
            raise self.error(key, f"a number from {least:g} to {most:g} is due")
        return float(value)

    def channels(self, key: str, default: float, least: float) -> Channels:
        """A number for each of three channels, or one for all, none smaller than `least` in size."""
        value = self._get(key, default)
        given = value if isinstance(value, list | tuple) else (value,) * 3
        if len(given) != 3 or not all(_is_number(number) and least <= abs(number) <= 1e6 for number in given):
            raise self.error(key, f"three numbers are due, from {least:g} to 1e+06 in size")
        return float(given[0]), float(given[1]), float(given[2])

    def check_size(self, size: int) -> None:
        value = self._get("size", size)
        sides = [value.get(name) for name in ("height", "width")] if isinstance(value, Mapping) else [value] * 2
        if any(isinstance(side, bool) or side != size for side in sides):
            raise self.error("size", f"the vision tower sees squares of {size} pixels: a height and a width are due")

    def pan_and_scan(self) -> PanAndScan | None:
        """None where pictures are not cut.  The settings are checked in any case."""
        made = PanAndScan(
            self.whole("pan_and_scan_min_crop_size", 256, 1, 1 << 20),
            self.whole("pan_and_scan_max_num_crops", 4, 1, _MOST_CROPS),
            self.number("pan_and_scan_min_ratio_to_activate", 1.2, 0.0, 1e6),
        )
        return made if self.flag("do_pan_and_scan", False) else None

    def error(self, key: str, due: str) -> ConfigError:
        return ConfigError(f'"{key}" is {shown(self.values.get(key))}; {due}.', where=self.origin)

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
