"""Values of a JSON file of strangers, each checked where it is taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.errors import ConfigError, shown

LARGEST = 1 << 14
"""Pixels of a side; no tower sees more at once."""


@dataclass(frozen=True)
class Settings:
    """An object of a file.  As in transformers, null is the same as nothing: the default stands.

    Everything raises ConfigError for a value that is not of its kind.
    """

    values: Mapping[str, Any]
    where: object

    def get(self, key: str, default: Any = None) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    def wrong(self, key: str, due: str) -> ConfigError:
        return ConfigError(f'"{key}" is {shown(self.values.get(key))}; {due} is due.', where=self.where)

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

    def number(self, key: str, default: float) -> float:
        value = self.get(key, default)
        if not _is_number(value):
            raise self.wrong(key, "a number")
        return float(value)

    def colour(self, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
        """A number for each of red, green and blue; one stands for all three."""
        value = self.get(key, default)
        if _is_number(value):
            return (float(value),) * 3
        if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(_is_number, value)):
            raise self.wrong(key, "a list of three numbers")
        red, green, blue = map(float, value)
        return red, green, blue

    def size(self, key: str, default: Mapping[str, int]) -> Mapping[str, int]:
        """{"height", "width"}, or {"shortest_edge"}, for which a number may stand."""
        value = self.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool):
            value = {"shortest_edge": value}
        if not isinstance(value, Mapping):
            raise self.wrong(key, "an object")
        stated = {name: edge for name, edge in value.items() if edge is not None}
        edges = Settings(stated, self.where)
        if set(stated) not in ({"height", "width"}, {"shortest_edge"}):
            raise self.wrong(key, '{"height", "width"} or {"shortest_edge"}')
        return {name: edges.whole(name, 0, 1, LARGEST) for name in stated}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
