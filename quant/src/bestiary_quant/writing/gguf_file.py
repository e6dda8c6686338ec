"""A GGUF file of version 3, in one part or several, whose tensors come one at a time.

The room for a header is known before any tensor: types and places take the same bytes whatever they are.  So it is left
free, tensors are appended as they come, and the header is filled in at the end: a file that was cut short is no GGUF.
Parts are those of llama.cpp (tools/gguf-split): the metadata stand in the first one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from bestiary.errors import CheckpointError, OptionError
from bestiary_quant.blocks.types import BlockType
from bestiary_quant.gguf.header import MAX_NAME, MAX_TENSORS
from bestiary_quant.gguf.selection import SUFFIX
from bestiary_quant.writing import values
from bestiary_quant.writing.partial import PartialFiles, told

ALIGNMENT = 32
MAX_PARTS = 99_999


@dataclass(frozen=True)
class Announced:
    """A tensor that will come: its shape, rows first, and about how many bytes it will take."""

    name: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass
class _Part:
    path: Path
    file: BinaryIO
    room: int
    """Bytes before the data."""
    announced: dict[str, Announced]
    pairs: Mapping[str, bytes]
    end: int = 0
    """Bytes of the data so far."""
    entries: dict[str, tuple[BlockType, int]] = field(default_factory=dict)


class GgufFile:
    """Made of the pairs of its metadata and of what is announced; then `add` for each tensor, and `finish`."""

    def __init__(
        self,
        files: PartialFiles,
        path: Path,
        pairs: Mapping[str, bytes],
        announced: Sequence[Announced],
        split_max_size: int | None = None,
    ) -> None:
        """Raises OptionError where the parts would be too many, CheckpointError where a file cannot be made."""
        groups = _grouped(announced, split_max_size)
        if len(groups) > MAX_PARTS or len(announced) > MAX_TENSORS:
            raise OptionError(
                f"The model would be cut into {len(groups)} files.", fix="give a larger --split-max-size, such as 4G"
            )
        self.paths = part_paths(path, len(groups))
        self._files, self._parts, self._of = files, [], {}  # type: PartialFiles, list[_Part], dict[str, _Part]
        for number, (place, group) in enumerate(zip(self.paths, groups, strict=True)):
            own: dict[str, bytes] = dict(pairs) if number == 0 else {}
            if len(groups) > 1:
                own["split.no"], own["split.count"] = values.u16(number), values.u16(len(groups))
                own["split.tensors.count"] = values.i32(len(announced))
            named = {tensor.name: tensor for tensor in group}
            head = _header(own, [(tensor, None, 0) for tensor in group])
            part = _Part(place, files.open(place), _aligned(len(head)), named, own)
            self._parts.append(part)
            for name in named:
                if name in self._of or len(name.encode()) > MAX_NAME:
                    raise CheckpointError(f"Two tensors would be {name[:100]!r}, or its name is too long.", where=path)
                self._of[name] = part
            with told(place):
                part.file.seek(part.room)

    def add(self, name: str, shape: tuple[int, ...], kind: BlockType, chunks: Iterable[memoryview | bytes]) -> int:
        """One tensor of the type, from its bytes in order; how many there were.

        Raises CheckpointError for a tensor that is not as it was announced, or comes twice.
        """
        part = self._of.get(name)
        if part is None or name in part.entries:
            raise CheckpointError(f"The tensor {name!r} was not announced, or comes twice.", where=self.paths[0])
        due = part.announced[name].shape
        if shape != due:
            raise CheckpointError(f"The tensor {name!r} has the shape {list(shape)}; {list(due)} is due.")
        rows = 1
        for size in shape[:-1]:
            rows *= size
        expected, written = rows * kind.row(shape[-1]), 0
        with told(part.path):
            for chunk in chunks:
                written += part.file.write(chunk)
            if written != expected:
                raise CheckpointError(f"The tensor {name!r} came as {written} bytes; {expected} are due.")
            part.file.write(bytes(_aligned(written) - written))
        part.entries[name] = kind, part.end
        part.end += _aligned(written)
        return written

    def finish(self) -> Mapping[Path, int]:
        """Fill the headers in, and give the files their names; sizes by path.  CheckpointError if a tensor lacks."""
        for part in self._parts:
            missing = [name for name in part.announced if name not in part.entries]
            if missing:
                raise CheckpointError(f"The tensor {missing[0]!r} and {len(missing) - 1} others did not come.")
            infos = [(part.announced[name], kind, start) for name, (kind, start) in part.entries.items()]
            with told(part.path):
                part.file.seek(0)
                part.file.write(_header(part.pairs, infos).ljust(part.room, b"\0"))
        return self._files.finish()


def part_paths(path: Path, count: int) -> list[Path]:
    """The files of a model in `count` parts, named as llama.cpp names them."""
    if count == 1:
        return [path]
    stem = path.name.removesuffix(SUFFIX)
    return [path.with_name(f"{stem}-{number:05}-of-{count:05}{SUFFIX}") for number in range(1, count + 1)]


def count_parts(announced: Sequence[Announced], split_max_size: int | None) -> int:
    """Into how many files the tensors would go."""
    return len(_grouped(announced, split_max_size))


def _grouped(announced: Sequence[Announced], most: int | None) -> list[list[Announced]]:
    groups: list[list[Announced]] = [[]]
    held = 0
    for tensor in announced:
        if most is not None and groups[-1] and held + tensor.nbytes > most:
            groups.append([])
            held = 0
        groups[-1].append(tensor)
        held += _aligned(tensor.nbytes)
    return groups


def _header(pairs: Mapping[str, bytes], infos: Sequence[tuple[Announced, BlockType | None, int]]) -> bytes:
    made = [b"GGUF", struct.pack("<IQQ", 3, len(infos), len(pairs)), values.encoded(pairs)]
    for tensor, kind, start in infos:
        shape = tensor.shape[::-1]
        made.append(values.string(tensor.name))
        made.append(struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind.code if kind else 0, start))
    return b"".join(made)


def _aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT
