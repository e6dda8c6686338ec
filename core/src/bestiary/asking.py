"""Options, checked: of loads and of requests."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar

from bestiary.errors import OptionError, shown
from bestiary.nearest import did_you_mean


class _Record(Protocol):
    """A dataclass, as type checkers know it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


_Options = TypeVar("_Options", bound=_Record)


def options_of(kind: type[_Options], given: Mapping[str, Any]) -> _Options:
    """A record of a dataclass `kind`.  Raises OptionError for a name that it has not, with the nearest."""
    known = [each.name for each in fields(kind)]
    for name in given:
        if name not in known:
            fix = did_you_mean(name, known) or f"the options are {', '.join(known)}"
            raise OptionError(f'There is no option "{name}".', fix=fix)
    return kind(**given)


def check_whole(name: str, value: Any, least: int, most: int, *, optional: bool = False) -> None:
    """Raises OptionError for what is no whole number within bounds; None is right only where it is `optional`."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise OptionError(f"{name} is {shown(value)}; a whole number from {least} to {most} is due.")


def check_number(name: str, value: Any, least: float, most: float, *, optional: bool = False) -> None:
    """Raises OptionError for what is no number within bounds, as NaN is; None is right only where it is `optional`."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise OptionError(f"{name} is {shown(value)}; a number from {least:g} to {most:g} is due.")


def seeds_of(seed: Any, count: int, what: str) -> list[int]:
    """One for each of `count` results, called `what`: those that were given, one and the numbers after it, or new ones.

    Raises OptionError.
    """
    if seed is None:
        return [secrets.randbits(32) for _ in range(count)]
    if isinstance(seed, int):
        check_whole("seed", seed, 0, (1 << 63) - 1 - count)
        return [seed + place for place in range(count)]
    seeds = list(seed) if isinstance(seed, Sequence) and not isinstance(seed, str) else None
    if seeds is None or len(seeds) != count:
        raise OptionError(f"seed is {shown(seed)}; a whole number, or one for each of {count} {what}, is due.")
    for each in seeds:
        check_whole("seed", each, 0, (1 << 63) - 1)
    return seeds
