"""The values of a `quantization_config`, which come from a stranger's file: read one by one, each with its bounds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bestiary.errors import ConfigError, shown
from bestiary.nearest import did_you_mean

LARGEST = 1 << 20
"""No honest group or block is larger."""


class Settings:
    """A `quantization_config`, and where it was read."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def get(self, *keys: str) -> Any:
        """The value of the first of the keys that has one, which are spellings of one setting; else None."""
        return next((self.values[key] for key in keys if self.values.get(key) is not None), None)

    def number(self, *keys: str, of: Collection[int], default: int) -> int:
        """One of some numbers.  Raises ConfigError for any other value."""
        value = self.get(*keys)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value not in of:
            allowed = ", ".join(map(str, of)) if len(of) < 20 else f"{min(of)} to {max(of)}"
            raise self.error(f'"{keys[0]}" is {shown(value)}; one of {allowed} is due.')
        return value

    def group_size(self, default: int | None) -> int | None:
        """Columns that share a scale; None or -1 are all of them.  Raises ConfigError for what is no such number."""
        value = self.get("group_size", "q_group_size")
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not (value == -1 or 1 <= value <= LARGEST):
            raise self.error(f'"group_size" is {shown(value)}; -1 or a number from 1 to {LARGEST} is due.')
        return None if value == -1 else value

    def block(self, key: str) -> tuple[int, int] | None:
        """Rows and columns of a block that shares a scale.  Raises ConfigError for what is no such pair."""
        value = self.get(key)
        if value is None:
            return None
        whole = isinstance(value, list | tuple) and len(value) == 2
        if not whole or any(isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= LARGEST for n in value):
            raise self.error(f'"{key}" is {shown(value)}; two numbers from 1 to {LARGEST} are due.')
        return value[0], value[1]

    def flag(self, *keys: str) -> bool:
        """Whether a switch is on.  Raises ConfigError for what is neither true nor false."""
        value = self.get(*keys)
        if not isinstance(value, bool | None):
            raise self.error(f'"{keys[0]}" is {shown(value)}; true or false is due.')
        return bool(value)

    def word(self, *keys: str, of: Collection[str], default: str) -> str:
        """One of some words, in any letter case.  Raises ConfigError for another, with the nearest."""
        value = self.get(*keys)
        if value is None:
            return default
        word = value.lower() if isinstance(value, str) else None
        if word is None or word not in of:
            near = did_you_mean(word, of) if word else ""
            raise self.error(
                f'"{keys[0]}" is {shown(value)}, which is not read here.', fix=near or f"one of {', '.join(sorted(of))}"
            )
        return word

    def names(self, *keys: str) -> frozenset[str]:
        """The names in all lists under these keys.  Raises ConfigError for what is no list of texts."""
        found: set[str] = set()
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
                raise self.error(f'"{key}" is {shown(value)}; a list of names is due.')
            found.update(value)
        return frozenset(found)

    def error(self, what: str, fix: str | None = None) -> ConfigError:
        """An error that says where the value stands."""
        return ConfigError(what, where=self.where, fix=fix)
