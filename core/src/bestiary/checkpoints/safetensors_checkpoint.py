"""A model stored as safetensors, in one file or in many: the built-in Loader "safetensors".

`files` and `open_header` import no torch, so that a repository can be judged before anything heavy happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bestiary.checkpoints.safetensors_header import FIRST_READ, Entry, Header, extent, parse
from bestiary.checkpoints.safetensors_index import files, index_of
from bestiary.errors import CheckpointError, WeightMismatch
from bestiary.nearest import nearest
from bestiary.protocols import Repository

if TYPE_CHECKING:
    import torch

    from bestiary.checkpoints.safetensors_file import SafetensorsFile

__all__ = ["SafetensorsCheckpoint", "files", "open", "open_header"]

MAX_NAMES_TO_COMPARE = 20_000
"""Beyond so many names the search for near ones would take seconds."""


class SafetensorsCheckpoint:
    """The tensors of one or more files under one set of names (see `bestiary.protocols.Checkpoint`)."""

    config: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, origin: str, headers: Mapping[str, Header], opened: Mapping[str, SafetensorsFile]) -> None:
        self.origin = origin
        self._files = dict(opened)
        self._entries: dict[str, Entry] = {}
        self._places: dict[str, str] = {}
        metadata: dict[str, str] = {}
        for file, header in headers.items():
            for name, entry in header.entries.items():
                if name in self._entries:
                    raise CheckpointError(
                        f"Tensor {name!r} lies in two files, {self._places[name]!r} and {file!r}",
                        where=origin,
                        fix="keep the files of one model only in the folder, or fetch them again",
                    )
                self._entries[name], self._places[name] = entry, file
            metadata = {**header.metadata, **metadata}
        self.metadata: Mapping[str, str] = MappingProxyType(metadata)
        """`__metadata__` of the files; where two differ, the first one's."""

    def names(self) -> tuple[str, ...]:
        """Every tensor name, by file and then in the order of their bytes."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The stored shape; for the types of less than a byte it counts numbers, not bytes."""
        return self._entry(name).shape

    def dtype(self, name: str) -> str:
        """The stored type, as the file spells it."""
        return self._entry(name).dtype

    def nbytes(self, name: str) -> int:
        """Bytes in the file."""
        entry = self._entry(name)
        return entry.end - entry.start

    def read(self, name: str) -> torch.Tensor:
        """A view on the file: copy it before `release`, and never write to it (see SafetensorsFile.read)."""
        self._entry(name)
        file = self._files.get(self._places[name])
        if file is None:
            raise CheckpointError(
                f"Tensor {name!r} cannot be read: only the headers of the files were opened, or they were closed",
                where=self.origin,
                fix="open the checkpoint itself",
            )
        return file.read(name)

    def prefetch(self, names: Iterable[str]) -> None:
        """Let the system read tensors ahead, without waiting for them and without memory of this process."""
        for name in names:
            self._entry(name)
            file = self._files.get(self._places[name])
            if file is not None:
                file.prefetch(name)

    def release(self) -> None:
        """Give back the pages read so far.  Raises CheckpointError if a file changed: then copies of them are void."""
        for file in self._files.values():
            file.release()

    def close(self) -> None:
        """Close all files; tensors still in use keep their map."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _entry(self, name: str) -> Entry:
        entry = self._entries.get(name)
        if entry is None:
            names = self._entries if len(self._entries) <= MAX_NAMES_TO_COMPARE else ()
            near = nearest(name[:1024], names)
            raise CheckpointError(
                f"The checkpoint has no tensor {name[:1024]!r}" + (f"; near names: {', '.join(near)}" if near else ""),
                where=self.origin,
                fix="check the weight rules of the architecture against `bestiary inspect`",
            )
        return entry


def open(repository: Repository, names: tuple[str, ...]) -> SafetensorsCheckpoint:
    """Map these files and check their headers against each other and against their index; reads no tensor.

    Raises CheckpointError for a malformed file or a tensor that two files hold, WeightMismatch where index and files
    do not list the same tensors.
    """
    from bestiary.checkpoints.safetensors_file import SafetensorsFile

    opened: dict[str, SafetensorsFile] = {}
    try:
        for name in names:
            opened[name] = SafetensorsFile(repository.path(name), _origin(repository, name))
        return _joined(repository, {name: file.header for name, file in opened.items()}, opened)
    except BaseException:
        for file in opened.values():
            file.close()
        raise


def open_header(repository: Repository, names: tuple[str, ...]) -> SafetensorsCheckpoint:
    """The same from the first bytes of the files alone: names, shapes and types before any weight is fetched."""
    sizes = repository.files()
    headers = {}
    for name in names:
        origin = _origin(repository, name)
        if name not in sizes:
            raise CheckpointError("There is no such file", where=origin)
        head = repository.head(name, FIRST_READ)
        need = extent(head, sizes[name], origin)
        headers[name] = parse(head if len(head) >= need else repository.head(name, need), sizes[name], origin)
    return _joined(repository, headers, {})


def _joined(
    repository: Repository, headers: Mapping[str, Header], opened: Mapping[str, SafetensorsFile]
) -> SafetensorsCheckpoint:
    checkpoint = SafetensorsCheckpoint(repository.origin, headers, opened)
    index = index_of(repository, tuple(headers))
    if index is not None:
        stored = set(checkpoint.names())
        missing = sorted(index.places.keys() - stored)
        unexpected = sorted(stored - index.places.keys())
        if missing or unexpected:
            raise WeightMismatch(
                f"{index.name} and the files do not list the same tensors"
                + _listed("; listed, but in no file", missing)
                + _listed("; in the files, but not listed", unexpected),
                where=repository.origin,
                fix="fetch the index and all shards again, from one revision",
                missing=missing,
                unexpected=unexpected,
            )
    return checkpoint


def _listed(what: str, names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{what}: {', '.join(name[:200] for name in names[:20])}{more}" if names else ""


def _origin(repository: Repository, name: str) -> str:
    return f"{repository.origin}: {name}"
