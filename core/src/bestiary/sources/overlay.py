"""A repository in which some files are others, such as a tokenizer of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bestiary.protocols import Repository

if TYPE_CHECKING:
    from bestiary.records import Progress


class Overlay:
    """Another repository (a `bestiary.protocols.Repository`) with local files over its own."""

    def __init__(self, below: Repository, files: Mapping[str, Path]) -> None:
        """`files` are those that lie over it, by the names under which they are seen."""
        self.id, self.local, self.origin = below.id, below.local, below.origin
        self._below, self._own = below, dict(files)

    def files(self) -> Mapping[str, int]:
        return {**self._below.files(), **{name: path.stat().st_size for name, path in self._own.items()}}

    def path(self, name: str) -> Path:
        return self._own.get(name) or self._below.path(name)

    def head(self, name: str, length: int) -> bytes:
        if name not in self._own:
            return self._below.head(name, length)
        with self._own[name].open("rb") as file:
            return file.read(length)

    def fetch(self, names: Iterable[str], progress: Callable[[Progress], None] | None = None) -> None:
        self._below.fetch([name for name in names if name not in self._own], progress)

    def missing(self, names: Iterable[str]) -> Mapping[str, int]:
        return self._below.missing([name for name in names if name not in self._own])

    def verify(self, names: Iterable[str]) -> Mapping[str, str]:
        return self._below.verify([name for name in names if name not in self._own])
