"""One model of a zoo: where it comes from, how it is loaded, and how long it stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bestiary.amount import as_bytes
from bestiary.errors import OptionError, shown


@dataclass(frozen=True, init=False)
class Entry:
    """A model id with the options of `load`, and of its life in a zoo.  Raises OptionError for a bad value."""

    id: str
    options: Mapping[str, Any]
    """What the loader is told: dtype, device, quant, cache_tokens ..."""
    pinned: bool
    """Never closed to make room, nor for being idle."""
    idle: float | None
    """Seconds without a lease after which the model is closed; None: only where room is needed."""
    memory: int | None
    """Bytes that it takes, for models of which that cannot be told from their files; None: it is estimated."""
    aliases: tuple[str, ...]
    """Other names for it."""

    def __init__(
        self,
        id: str,
        *,
        pinned: bool = False,
        idle: float | None = None,
        memory: int | str | None = None,
        aliases: Iterable[str] = (),
        **options: Any,
    ) -> None:
        if not isinstance(id, str) or not id:
            raise OptionError(f"The id of a model is {shown(id)}; a text is due.")
        if not isinstance(pinned, bool):
            raise OptionError(f"pinned is {shown(pinned)}; True or False is due.")
        if idle is not None and (isinstance(idle, bool) or not isinstance(idle, int | float) or not 0 < idle < 1e9):
            raise OptionError(f"idle is {shown(idle)}; seconds above 0 are due.")
        names = (aliases,) if isinstance(aliases, str) else tuple(aliases)
        for name in names:
            check_name(name)
        values = {
            "id": id,
            "options": MappingProxyType(dict(options)),
            "pinned": pinned,
            "idle": idle,
            "memory": None if memory is None else as_bytes("memory", memory),
            "aliases": names,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


def check_name(name: object) -> str:
    """Raises OptionError for what cannot name a model."""
    if not isinstance(name, str) or not 0 < len(name) <= 300 or not name.isprintable():
        raise OptionError(f"The name of a model is {shown(name)}; a printable text of at most 300 characters is due.")
    return name
