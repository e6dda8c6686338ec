"""Amounts of memory as people write and read them."""

from __future__ import annotations

import re

from bestiary.errors import OptionError, shown

_WRITTEN = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kmgtKMGT]?)(i?)[bB]\s*")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def as_bytes(name: str, value: object) -> int:
    """Bytes of a whole number or a text such as "24 GiB" or "512 MB".  Raises OptionError that says `name`."""
    if isinstance(value, str) and (found := _WRITTEN.fullmatch(value)):
        number, prefix, binary = found.groups()
        value = int(float(number) * (1024 if binary else 1000) ** _POWERS[prefix.lower()])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 60:
        raise OptionError(f'{name} is {shown(value)}; bytes are due: a whole number, or a text such as "24 GiB".')
    return value


def check_memory(value: object) -> int | float | None:
    """A budget: bytes, a share of what is free (a float above 0 and up to 1.0), or None, all that is free."""
    if value is None:
        return None
    if not isinstance(value, float):
        return as_bytes("memory", value)
    if not 0.0 < value <= 1.0:
        raise OptionError(f"memory is {value}; as a share of the free memory it is above 0 and at most 1.0.")
    return value


def budget_of(memory: int | float | None, free: int | None, device: str) -> int:
    """The budget in bytes on a device with `free` bytes (None: not known)."""
    if isinstance(memory, int):
        return memory
    if free is None:
        raise OptionError(f"The free memory of {device} is not known.", fix='state the budget: memory="24 GiB"')
    return free if memory is None else int(free * memory)


def written(count: int) -> str:
    """Bytes for people: 1.5 GB."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
