"""The files of one model, opened or only looked at, and checked against each other."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from bestiary.errors import CheckpointError
from bestiary.protocols import Repository
from bestiary_quant.gguf.cursor import Incomplete
from bestiary_quant.gguf.header import Entry, Header, parse
from bestiary_quant.mapped import MappedFile

READS = (1 << 20, 1 << 24, 1 << 28)
"""Bytes of the beginnings that are asked for, one after the other, until a header is whole; vocabularies have 16 MB."""
SMALL = 1 << 22
"""Bytes beyond which a tensor of the configuration is not read through a beginning of its file."""


_SEEN: WeakKeyDictionary[Repository, dict[str, Header]] = WeakKeyDictionary()
"""Without their files, by which file it was and in which state."""


@dataclass(frozen=True)
class Part:
    """One file: its header and, where it lies on this machine, its bytes."""

    name: str
    header: Header
    mapped: MappedFile | None

    @property
    def sees(self) -> bool:
        """Whether it is a companion (mmproj): a tower and a projector for the text model in another file."""
        return self.header.metadata.architecture == "clip"


def read_parts(repository: Repository, names: Sequence[str], *, fetch: bool) -> tuple[Part, ...]:
    """The headers of all files, which with `fetch` are brought here and mapped.

    Raises CheckpointError for a malformed header, and for files that are not the parts of one model in order.  A
    companion, which sees for the model, comes after its parts and is none of them.
    """
    if sys.byteorder != "little":
        raise CheckpointError("GGUF files are little-endian, and this machine is not.", where=repository.origin)
    parts: list[Part] = []
    try:
        for name in names:
            parts.append(_read_part(repository, name, fetch))
        _check_split([part for part in parts if not part.sees] or parts)
    except BaseException:
        close_parts(parts)
        raise
    return tuple(parts)


def close_parts(parts: Iterable[Part]) -> None:
    """Close the files that are open."""
    for part in parts:
        if part.mapped is not None:
            part.mapped.close()


def read_content(repository: Repository, part: Part, entry: Entry) -> bytes:
    """The bytes of one small tensor.  Of a remote file that begins with larger ones, it fetches the file."""
    if part.mapped is None and entry.end <= max(SMALL, READS[0]):
        head = repository.head(part.name, entry.end)
        if len(head) == entry.end:
            return head[entry.start :]
    mapped = part.mapped or MappedFile(repository.path(part.name), part.header.origin)
    content = mapped.buffer[entry.start : entry.end]
    if part.mapped is None:
        mapped.close()
    if len(content) != entry.end - entry.start:
        raise CheckpointError(
            "The file is shorter than its repository says.", where=part.header.origin, fix="try again"
        )
    return content


def _read_part(repository: Repository, name: str, fetch: bool) -> Part:
    origin = f"{repository.origin}: {name}"
    sizes = repository.files()
    if name not in sizes:
        raise CheckpointError("There is no such file.", where=origin)
    if fetch or not repository.missing([name]):
        mapped = MappedFile(repository.path(name), origin)
        try:
            return Part(name, _header(repository, mapped), mapped)
        except BaseException:
            mapped.close()
            raise
    for length in READS:
        head = repository.head(name, length)
        try:
            return Part(name, parse(head, sizes[name], origin), None)
        except Incomplete:
            if len(head) < length:
                raise CheckpointError(
                    f"{len(head)} bytes of the file came where {length} were asked for.", where=origin, fix="try again"
                ) from None
    raise CheckpointError(f"The header is longer than {READS[-1]} bytes.", where=origin, fix="check what this file is")


def _header(repository: Repository, mapped: MappedFile) -> Header:
    """Parsed once for a repository: a load asks for the configuration, then the tokenizer, then the weights."""
    whole: Repository = getattr(repository, "whole", repository)  # of a part of it that is shown alone
    try:
        seen = _SEEN.setdefault(whole, {})
    except TypeError:  # a source's own class may have neither a hash nor weak references
        seen = {}
    if mapped.identity in seen:
        return seen[mapped.identity].on(mapped.buffer)
    header = parse(mapped.buffer, mapped.size, mapped.origin)
    seen[mapped.identity] = header.on(b"")
    return header


def _check_split(parts: Sequence[Part]) -> None:
    where = parts[0].header.origin if parts else None
    fix = "fetch all parts again, from one revision"
    due: set[int] = set()
    for number, part in enumerate(parts):
        metadata = part.header.metadata
        count, place = metadata.whole("split.count"), metadata.whole("split.no")
        if count not in (None, 0, len(parts)) or (count and place != number):
            raise CheckpointError(
                f"{part.name} says that it is part {(place or 0) + 1} of {count}, and it is taken for "
                f"part {number + 1} of {len(parts)}.",
                where=part.header.origin,
                fix=fix,
            )
        if (total := metadata.whole("split.tensors.count")) is not None and count:
            due.add(total)
    held = sum(len(part.header.tensors) for part in parts)
    if due and due != {held}:
        said = " or ".join(str(total) for total in sorted(due))
        raise CheckpointError(f"The parts announce {said} tensors and hold {held}.", where=where, fix=fix)
    seen: dict[str, str] = {}
    for part in parts:
        for name in part.header.tensors:
            if name in seen:
                raise CheckpointError(
                    f"The tensor {name!r} lies in two files, {seen[name]} and {part.name}.", where=where, fix=fix
                )
            seen[name] = part.name
