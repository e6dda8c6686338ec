"""A repository in which only one of several models is seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bestiary.errors import ModelNotFound
from bestiary.protocols import Repository

if TYPE_CHECKING:
    from bestiary.records import Progress


class Chosen:
    """Another repository (a `bestiary.protocols.Repository`) without the weight files that were not chosen."""

    def __init__(
        self, whole: Repository, names: Collection[str], suffixes: tuple[str, ...], origin: str | None = None
    ) -> None:
        """Of the files that end in `suffixes` only `names` stay."""
        self.id, self.local = whole.id, whole.local
        self.origin = f"{whole.origin}, {min(names)}" if origin is None else origin
        self.whole, self._names, self._suffixes = whole, frozenset(names), suffixes

    def files(self) -> Mapping[str, int]:
        return {name: size for name, size in self.whole.files().items() if self._seen(name)}

    def path(self, name: str) -> Path:
        return self.whole.path(self._checked(name))

    def head(self, name: str, length: int) -> bytes:
        return self.whole.head(self._checked(name), length)

    def fetch(self, names: Iterable[str], progress: Callable[[Progress], None] | None = None) -> None:
        self.whole.fetch([self._checked(name) for name in names], progress)

    def missing(self, names: Iterable[str]) -> Mapping[str, int]:
        return self.whole.missing([self._checked(name) for name in names])

    def verify(self, names: Iterable[str]) -> Mapping[str, str]:
        return self.whole.verify([self._checked(name) for name in names])

    def _seen(self, name: str) -> bool:
        return name in self._names or not name.endswith(self._suffixes)

    def _checked(self, name: str) -> str:
        if not self._seen(name):
            raise ModelNotFound(f"{name!r} was not chosen.", where=self.origin)
        return name
