"""Values of configuration files, which anybody may have written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bestiary.errors import ConfigError, shown


def whole(values: Mapping[str, Any], key: str, least: int, most: int, where: str) -> int:
    """values[key], a whole number within bounds.  Raises ConfigError."""
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f'"{key}" is {shown(value)}; a whole number from {least} to {most} is due.', where=where)
    return value


def number(values: Mapping[str, Any], key: str, least: float, most: float, where: str) -> float:
    """values[key], a finite number within bounds.  Raises ConfigError."""
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigError(f'"{key}" is {shown(value)}; a number from {least:g} to {most:g} is due.', where=where)
    return float(value)


def truth(values: Mapping[str, Any], key: str, where: str) -> bool:
    """values[key], true or false.  Raises ConfigError."""
    value = values.get(key)
    if not isinstance(value, bool):
        raise ConfigError(f'"{key}" is {shown(value)}; true or false is due.', where=where)
    return value


def by_channel(values: Mapping[str, Any], key: str, where: str, *, positive: bool) -> tuple[float, float, float]:
    """values[key], a number for each of red, green and blue, or one for all.  Raises ConfigError."""
    value = values.get(key)
    stated = [value] * 3 if isinstance(value, int | float) else value
    if not isinstance(stated, list | tuple) or len(stated) != 3 or not all(_good(each, positive) for each in stated):
        kind = "three positive numbers are" if positive else "three numbers are"
        raise ConfigError(f'"{key}" is {shown(value)}; {kind} due.', where=where)
    red, green, blue = (float(each) for each in stated)
    return red, green, blue


def _good(value: Any, positive: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # What float32 tells from zero, and from infinity.
    return (1e-6 if positive else -1e6) <= value <= 1e6 and math.isfinite(value)
