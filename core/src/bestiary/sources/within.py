"""A folder of a repository, seen as a repository of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bestiary.protocols import Repository

if TYPE_CHECKING:
    from bestiary.records import Progress


class Within:
    """The files of another repository (a `bestiary.protocols.Repository`) that lie in one of its folders."""

    def __init__(self, whole: Repository, folder: str) -> None:
        """`folder` has forward slashes and none at its end."""
        self.id, self.local, self.origin = whole.id, whole.local, f"{whole.origin}/{folder}"
        self._whole, self._prefix = whole, f"{folder}/"

    def files(self) -> Mapping[str, int]:
        prefix = self._prefix
        return {
            name.removeprefix(prefix): size for name, size in self._whole.files().items() if name.startswith(prefix)
        }

    def path(self, name: str) -> Path:
        return self._whole.path(self._prefix + name)

    def head(self, name: str, length: int) -> bytes:
        return self._whole.head(self._prefix + name, length)

    def fetch(self, names: Iterable[str], progress: Callable[[Progress], None] | None = None) -> None:
        self._whole.fetch([self._prefix + name for name in names], progress)

    def missing(self, names: Iterable[str]) -> Mapping[str, int]:
        found = self._whole.missing([self._prefix + name for name in names])
        return {name.removeprefix(self._prefix): size for name, size in found.items()}

    def verify(self, names: Iterable[str]) -> Mapping[str, str]:
        found = self._whole.verify([self._prefix + name for name in names])
        return {name.removeprefix(self._prefix): hashed for name, hashed in found.items()}
