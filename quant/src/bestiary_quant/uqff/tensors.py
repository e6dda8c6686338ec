"""The files of one model under one set of names: shards, which all repeat the version, and the residual."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bestiary.checkpoints.safetensors_header import FIRST_READ, Entry, Header, extent, parse
from bestiary.errors import CheckpointError
from bestiary.nearest import nearest
from bestiary.protocols import Repository
from bestiary_quant.uqff.form import SUFFIX, VERSION, VERSION_KEYS

if TYPE_CHECKING:
    import torch

    from bestiary.checkpoints.safetensors_file import SafetensorsFile

LOOKED_AHEAD = 1 << 20
"""Bytes behind a header that are read with it, for the descriptions of layers lie there."""
MAX_NAMES_TO_COMPARE = 20_000
"""Beyond so many names the search for near ones would take seconds."""
_TYPES = {"U8": "uint8", "U32": "uint32"}


@dataclass(frozen=True)
class Part:
    """One file: its header, and either the file itself or its first bytes."""

    name: str
    header: Header
    file: SafetensorsFile | None = None
    head: bytes = b""

    def read(self, name: str) -> torch.Tensor:
        """A view on the file; of first bytes, a tensor that lies among them.  Raises CheckpointError for any other."""
        if self.file is not None:
            return self.file.read(name)
        import torch

        entry = self.header.entries[name]
        if entry.end > len(self.head) or entry.dtype not in _TYPES or entry.start == entry.end:
            raise CheckpointError(
                f"Tensor {name!r} cannot be read: only the beginnings of the files are here, or they were closed.",
                where=self.header.origin,
                fix="open the checkpoint itself",
            )
        data = bytearray(self.head[entry.start : entry.end])
        return torch.frombuffer(data, dtype=getattr(torch, _TYPES[entry.dtype])).reshape(entry.shape)


class UqffTensors:
    """Every tensor as it is stored (a `bestiary.protocols.Checkpoint`); the version is checked and not among them."""

    config: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, origin: str, parts: Sequence[Part]) -> None:
        """Raises CheckpointError for a version that is not read here, and for a tensor that lies in two files."""
        self.origin = origin
        self._parts = list(parts)
        self._places: dict[str, tuple[Part, Entry]] = {}
        shards = [part for part in parts if part.name.endswith(SUFFIX)]
        self.version = _version(shards, origin)
        for part in parts:
            for name, entry in part.header.entries.items():
                if name in VERSION_KEYS and part in shards:
                    continue
                if name in self._places:
                    if part not in shards:
                        continue  # a residual is shared by models that pack more and less
                    raise CheckpointError(
                        f"Tensor {name[:200]!r} lies in two files, {self._places[name][0].name!r} and {part.name!r}.",
                        where=origin,
                        fix="keep the files of one model only, or fetch them again",
                    )
                self._places[name] = part, entry

    def names(self) -> tuple[str, ...]:
        """Every tensor, by file and then in the order of their bytes."""
        return tuple(self._places)

    def in_shard(self, name: str) -> bool:
        """Whether it lies among the layers, and not in the residual."""
        return self._place(name)[0].name.endswith(SUFFIX)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._place(name)[1].shape

    def dtype(self, name: str) -> str:
        return self._place(name)[1].dtype

    def nbytes(self, name: str) -> int:
        entry = self._place(name)[1]
        return entry.end - entry.start

    def read(self, name: str) -> torch.Tensor:
        """A view on the file, which is never written."""
        return self._place(name)[0].read(name)

    def release(self) -> None:
        """Give back the pages read so far.  Raises CheckpointError if a file changed: then copies of them are void."""
        for part in self._parts:
            if part.file is not None:
                part.file.release()

    def close(self) -> None:
        """Close all files; tensors still in use keep their map."""
        close_files(part.file for part in self._parts)

    def _place(self, name: str) -> tuple[Part, Entry]:
        place = self._places.get(name)
        if place is None:
            near = nearest(name[:1024], self._places if len(self._places) <= MAX_NAMES_TO_COMPARE else ())
            raise CheckpointError(
                f"The checkpoint has no tensor {name[:1024]!r}"
                + (f"; near names: {', '.join(near)}." if near else "."),
                where=self.origin,
            )
        return place


def open_files(repository: Repository, names: Iterable[str]) -> UqffTensors:
    """Map these files and check their headers.  Raises CheckpointError."""
    from bestiary.checkpoints.safetensors_file import SafetensorsFile

    opened: list[SafetensorsFile] = []

    def part(name: str) -> Part:
        opened.append(SafetensorsFile(repository.path(name), f"{repository.origin}: {name}"))
        return Part(name, opened[-1].header, opened[-1])

    return _joined(repository, names, part, lambda: close_files(opened))


def open_heads(repository: Repository, names: Iterable[str]) -> UqffTensors:
    """The same of the first bytes of the files; tensors behind them cannot be read."""
    sizes = repository.files()

    def part(name: str) -> Part:
        origin = f"{repository.origin}: {name}"
        if name not in sizes:
            raise CheckpointError("There is no such file.", where=origin)
        head = repository.head(name, FIRST_READ)
        need = extent(head, sizes[name], origin)
        ahead = min(need + LOOKED_AHEAD, sizes[name]) if name.endswith(SUFFIX) else need
        head = head if len(head) >= ahead else repository.head(name, ahead)
        return Part(name, parse(head, sizes[name], origin), head=head)

    return _joined(repository, names, part, lambda: None)


def close_files(files: Iterable[SafetensorsFile | None]) -> None:
    for file in files:
        if file is not None:
            file.close()


def _joined(
    repository: Repository, names: Iterable[str], part: Callable[[str], Part], undo: Callable[[], None]
) -> UqffTensors:
    try:
        return UqffTensors(repository.origin, [part(name) for name in names])
    except BaseException:
        undo()
        raise


def _version(shards: Sequence[Part], origin: str) -> tuple[int, int, int]:
    """The version that all shards that have one agree on.  Raises CheckpointError for one that is not read here."""
    found: dict[str, tuple[int, str]] = {}
    for part in shards:
        for key in VERSION_KEYS:
            entry = part.header.entries.get(key)
            if entry is None:
                continue
            if entry.dtype != "U32" or entry.shape != ():
                raise CheckpointError(
                    f"{key} is {entry.dtype} of the shape {list(entry.shape)}; one U32 is due.",
                    where=part.header.origin,
                )
            value = int(part.read(key))
            if key in found and found[key][0] != value:
                raise CheckpointError(
                    f"{key} is {value}, and {found[key][0]} in {found[key][1]!r}: the shards are of two models.",
                    where=part.header.origin,
                    fix="keep the files of one model only, or fetch them again",
                )
            found[key] = value, part.name
    if len(found) < len(VERSION_KEYS):
        raise CheckpointError(
            "The file has no version: it was written by a mistral.rs before 1.0 of the format, whose layers have no "
            "names, or it is no UQFF.",
            where=origin,
            fix="make it again from the model, with `mistralrs quantize` or `bestiary quantize`",
        )
    major, minor, patch = (found[key][0] for key in VERSION_KEYS)
    if major != VERSION[0] or minor > VERSION[1]:
        raise CheckpointError(
            f"The file is UQFF {major}.{minor}.{patch}; {VERSION[0]}.0 to {VERSION[0]}.{VERSION[1]} is read here.",
            where=origin,
            fix="a newer bestiary-quant may read it"
            if (major, minor) > VERSION[:2]
            else "make it again from the model",
        )
    return major, minor, patch
