"""What the files of a checkpoint say of its processor: values of strangers, each checked where it is taken.

transformers 5 writes one processor_config.json with a part for each kind of media; before that pictures had
preprocessor_config.json and videos video_preprocessor_config.json.  What a file leaves out, or has as null, is what the
class of the family takes for granted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bestiary.config import Config, read_json
from bestiary.errors import ConfigError, shown
from bestiary.media.images import RESAMPLING
from bestiary.protocols import Repository

Colours = tuple[float, float, float]
"""A number for each of red, green and blue."""

LARGEST = 1e6
"""In size, of a number of a colour."""
LEAST_STD = 1e-6
"""What float32 tells from zero."""


@dataclass(frozen=True)
class Settings:
    """An object of a file.  Whatever is not of the kind that is asked for is a ConfigError."""

    values: Mapping[str, Any]
    where: str

    def __contains__(self, key: str) -> bool:
        """Whether the file says it."""
        return self.values.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    def part(self, key: str) -> Settings | None:
        """An object inside; None where there is none."""
        if key not in self:
            return None
        if not isinstance(self.values[key], Mapping):
            raise self.wrong(key, "an object")
        return Settings(self.values[key], f"{self.where}, {key}")

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str, default: str) -> str:
        value = self.get(key, default)
        if not isinstance(value, str) or not 0 < len(value) <= 256:
            raise self.wrong(key, "a text")
        return value

    def whole(self, key: str, default: int, least: int, most: int) -> int:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(key, f"a whole number from {least} to {most}")
        return value

    def number(self, key: str, default: float, least: float, most: float) -> float:
        value = self.get(key, default)
        if not _within(value, least, most):
            raise self.wrong(key, f"a number from {least:g} to {most:g}")
        return float(value)

    def colours(self, key: str, default: float | Colours, least: float = 0.0) -> Colours:
        """A number for each colour, or one for all; none smaller than `least` in size."""
        value = self.get(key, default)
        each = value if isinstance(value, list | tuple) else (value,) * 3
        if len(each) != 3 or not all(_within(number, -LARGEST, LARGEST) and abs(number) >= least for number in each):
            raise self.wrong(key, f"three numbers from {least:g} to {LARGEST:g} in size, or one for all,")
        return float(each[0]), float(each[1]), float(each[2])

    def resample(self, default: int) -> int:
        """A resampling by its number in Pillow."""
        return self.whole("resample", default, min(RESAMPLING), max(RESAMPLING))

    def scaling(self, mean: float | Colours, std: float | Colours) -> tuple[Colours, Colours, float]:
        """Mean, std and scale with which `images.normalised` does what `do_rescale` and `do_normalize` say."""
        stated = self.colours("image_mean", mean), self.colours("image_std", std, LEAST_STD)
        scale = self.number("rescale_factor", 1 / 255, -LARGEST, LARGEST)
        chosen = stated if self.flag("do_normalize", True) else ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        return *chosen, scale if self.flag("do_rescale", True) else 1.0

    def wrong(self, key: str, due: str) -> ConfigError:
        return ConfigError(f'"{key}" is {shown(self.values.get(key))}; {due} is due.', where=self.where)


def read_settings(repository: Repository, name: str) -> Settings:
    """A file of the repository; nothing where it is not there."""
    values = read_json(repository.path(name)) if name in repository.files() else {}
    return Settings(values, f"{repository.origin}: {name}")


def media_settings(repository: Repository, config: Config, part: str, names: Sequence[str]) -> Settings:
    """Those of "image_processor" or "video_processor": of processor_config.json, else of the first of `names` that is
    there, else what a weight file carries of them (`preprocessor_config` of the configuration)."""
    found = read_settings(repository, "processor_config.json").part(part)
    if found is not None:
        return found
    for name in names:
        if name in repository.files():
            return read_settings(repository, name)
    carried = Settings(config, config.origin).part("preprocessor_config")
    return carried or Settings({}, repository.origin)


def _within(value: object, least: float, most: float) -> bool:
    """Not NaN, which is in no interval, and no whole number that a float cannot hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
