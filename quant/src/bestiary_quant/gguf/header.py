"""The header of a GGUF file: parsed in one walk, and checked in full before anything of its size is allocated.

Version 2 and 3 of the format are read, which differ in nothing that stands in a little-endian file.  Nothing here
imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from bestiary.checkpoints import refuse
from bestiary.errors import CheckpointError
from bestiary_quant.blocks.types import REMOVED, TYPES, BlockType
from bestiary_quant.gguf.cursor import AGAIN, U32, U64, Buffer, Cursor
from bestiary_quant.gguf.metadata import Metadata, read_metadata

MAX_TENSORS = 1 << 17
MAX_NAME = 1024
"""Bytes of a tensor's name; ggml takes 63, other writers more."""
MAX_DIMENSIONS = 4
ALIGNMENT = 32
"""Of the data, where `general.alignment` says nothing else."""
MAX_ALIGNMENT = 1 << 24


class Entry(NamedTuple):
    """One tensor: its type, its shape as torch counts (rows first), and the bytes [start, end) of the file."""

    kind: BlockType
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A header that kept every promise of the format; tensors are in the order of the header."""

    version: int
    metadata: Metadata
    tensors: Mapping[str, Entry]
    origin: str

    def on(self, data: Buffer) -> Header:
        """The same header of the same file, mapped anew."""
        return replace(self, metadata=self.metadata.on(data))


def sniff(name: str, head: bytes) -> bool:
    """Whether a file is meant to be GGUF: by its first bytes, else by its ending."""
    return head.startswith(b"GGUF") or (name.endswith(".gguf") and refuse.kind_of(head) is None)


def parse(data: Buffer, size: int, origin: str, most: int = MAX_TENSORS) -> Header:
    """The header in the first bytes of a file of `size` bytes, or in its whole; it has at most so many tensors.

    Raises CheckpointError, which names the byte or the tensor, unless all of this holds: keys and tensor names are
    printable text and none comes twice; types are known; rows are whole blocks; and the tensors lie in the file,
    aligned and apart from each other.  Raises Incomplete where `data` is only a part that is too short.
    """
    cursor = Cursor(data, size, origin)
    _read_magic(cursor)
    version = _read_version(cursor)
    count = cursor.number(U64, "the count of tensors")
    metadata = read_metadata(cursor, cursor.number(U64, "the count of metadata"))
    alignment = _alignment(metadata)
    # The smallest tensor: the length of its name, one character, no dimensions, type and offset.
    if count > most or count > (size - cursor.at) // 25:
        raise cursor.error(f"{count} tensors are announced; {most} are allowed, if they fit the file")
    tensors: dict[str, Entry] = {}
    for _ in range(count):
        name = cursor.text("a tensor name", MAX_NAME)
        if name in tensors:
            raise cursor.error(f"the tensor {name!r} comes twice")
        tensors[name] = _read_entry(cursor, f"the tensor {name!r}", alignment)
    first = -(-cursor.at // alignment) * alignment
    placed = {name: entry._replace(start=entry.start + first, end=entry.end + first) for name, entry in tensors.items()}
    _check_places(placed, size, origin)
    return Header(version, metadata, placed, origin)


def _read_magic(cursor: Cursor) -> None:
    head = bytes(cursor.data[:64])
    if not b"GGUF".startswith(head[:4]):
        raise refuse.foreign(head, cursor.origin) or CheckpointError(
            f"This is not a GGUF file: it begins with {head[:4]!r}, not with b'GGUF'.", where=cursor.origin, fix=AGAIN
        )
    cursor.skip(4, "the mark of the format")


def _read_version(cursor: Cursor) -> int:
    version = cursor.number(U32, "the version")
    if version in (2, 3):
        return version
    if version and version & 0xFFFF == 0:
        raise CheckpointError(
            "The file is big-endian, as machines of another kind write it.",
            where=cursor.origin,
            fix="convert it with `gguf-convert-endian FILE little`, or take a little-endian file of the same model",
        )
    raise CheckpointError(
        f"The file is of version {version} of GGUF; versions 2 and 3 are read.",
        where=cursor.origin,
        fix="convert the model again with a newer llama.cpp" if version < 2 else "use a newer bestiary-quant",
    )


def _alignment(metadata: Metadata) -> int:
    alignment = metadata.whole("general.alignment")
    if alignment is None:
        return ALIGNMENT
    if not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise CheckpointError(
            f"The alignment of the file is {alignment}; a power of two from 8 to {MAX_ALIGNMENT} is due.",
            where=metadata.origin,
            fix=AGAIN,
        )
    return alignment


def _read_entry(cursor: Cursor, what: str, alignment: int) -> Entry:
    """One tensor, with its place counted from the beginning of the data."""
    dimensions = cursor.number(U32, f"the count of dimensions of {what}")
    if dimensions > MAX_DIMENSIONS:
        raise cursor.error(f"{what} has {dimensions} dimensions; up to {MAX_DIMENSIONS} are allowed")
    sizes = [cursor.number(U64, f"a dimension of {what}") for _ in range(dimensions)]
    if 0 in sizes or math.prod(sizes) >= 1 << 63:
        raise cursor.error(f"{what} has the impossible shape {sizes[::-1]}")
    code = cursor.number(U32, f"the type of {what}")
    kind = TYPES.get(code)
    if kind is None:
        how = "the format no longer has it" if code in REMOVED else "a newer bestiary-quant may know it"
        raise cursor.error(f"{what} has the unknown type {code}; {how}")
    columns = sizes[0] if sizes else 1
    if columns % kind.length:
        raise cursor.error(f"{what} has rows of {columns} numbers, and {kind.name} comes in blocks of {kind.length}")
    offset = cursor.number(U64, f"the offset of {what}")
    if offset % alignment:
        raise cursor.error(f"{what} begins at {offset}, which is no multiple of the alignment {alignment}")
    return Entry(kind, tuple(sizes[::-1]), offset, offset + kind.row(columns) * math.prod(sizes[1:]))


def _check_places(tensors: Mapping[str, Entry], size: int, origin: str) -> None:
    at, before = 0, ""
    for name, entry in sorted(tensors.items(), key=lambda item: item[1].start):
        if entry.start < at:
            raise CheckpointError(f"The tensors {before!r} and {name!r} overlap.", where=origin, fix=AGAIN)
        if entry.end > size:
            raise CheckpointError(
                f"The file is truncated: the tensor {name!r} ends at byte {entry.end}, the file at {size}.",
                where=origin,
                fix=AGAIN,
            )
        at, before = entry.end, name
