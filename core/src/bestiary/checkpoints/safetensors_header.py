"""The header of a safetensors file: parsed from bytes, checked in full, before anything of its size is allocated.

The format is https://github.com/huggingface/safetensors#format: eight bytes of length, JSON, then the tensors.  The
JSON that it allows is so small a language that it is scanned here directly.  A general JSON parser would build whatever
a hostile header asks for, gigabytes of nested lists or half a million digits, before the first check could run.

This module imports neither torch nor safetensors.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from bestiary.checkpoints import refuse
from bestiary.errors import CheckpointError

BITS: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
        **dict.fromkeys(("F32", "I32", "U32"), 32),
        **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
        **dict.fromkeys(("I8", "U8", "BOOL"), 8),
        **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
        **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
        "F4": 4,
    }
)
"""Bits of one element, for every type of the format."""

MAX_HEADER = 100_000_000
"""Bytes of JSON; the limit of the safetensors library too."""
MAX_TENSORS = 500_000
MAX_METADATA = 100_000
"""Entries of `__metadata__`."""
MAX_NAME = 1024
"""Characters of a tensor name."""
MAX_DIMENSIONS = 32
FIRST_READ = 128 * 1024
"""Bytes of a first read that hold nearly every header whole."""

_AGAIN = "fetch the file again; if it was made by a conversion, convert it again"
_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"((?:[^"\\\x00-\x1f]++|\\.)*+)"'
_WHOLE = rb"(?:0|[1-9][0-9]{0,18}+)"
_COMMA = _SPACE + rb"," + _SPACE
_KEY = re.compile(_SPACE + _STRING + _SPACE + rb":" + _SPACE)
_BRACE = re.compile(rb"\{" + _SPACE)
_MORE = re.compile(_SPACE + rb"([,}])")
_PAIR = re.compile(_SPACE + _STRING + _SPACE + rb":" + _SPACE + _STRING + _SPACE + rb"([,}])")
_TENSOR = re.compile(
    # Three fields in any order; each ends before a comma and another name, or before the brace.  Whether the three
    # differ shows in the groups: one that stayed empty means that another came twice.
    _KEY.pattern
    + rb"\{%b(?:(?:" % _SPACE
    + rb'"dtype"%b:%b"([A-Za-z0-9_]{1,32})"' % (_SPACE, _SPACE)
    + rb'|"shape"%b:%b\[%b((?:%b(?:%b%b){0,%d}+)?+)%b\]'
    % (_SPACE, _SPACE, _SPACE, _WHOLE, _COMMA, _WHOLE, MAX_DIMENSIONS - 1, _SPACE)
    + rb'|"data_offsets"%b:%b\[%b(%b)%b(%b)%b\]' % (_SPACE, _SPACE, _SPACE, _WHOLE, _COMMA, _WHOLE, _SPACE)
    + rb')%b(?:,%b(?=")|(?=\}))){3}+\}' % (_SPACE, _SPACE)
    + _MORE.pattern
)


class Entry(NamedTuple):
    """One tensor: its stored type, its shape, and the bytes [start, end) of the file that hold it."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """A header that kept every promise of the format; entries are in the order of their bytes in the file."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    origin: str


def sniff(name: str, head: bytes) -> bool:
    """Whether a file is meant to be safetensors: by its first bytes, else by its ending.

    A damaged file with the right ending counts, because this reader then says what is wrong with it.
    """
    if len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= MAX_HEADER:
        return True
    return name.endswith(".safetensors") and not head.startswith(b"GGUF")


def extent(head: bytes, size_of_file: int, origin: str) -> int:
    """Bytes from the beginning of the file to its first tensor: so many `parse` needs.  `head` may be short."""
    if size_of_file < 10 or len(head) < 9:
        raise _error(f"the file has {size_of_file} bytes; the smallest safetensors file has 10", origin)
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{":
        raise refuse.foreign(head, origin) or _error(
            f"this is not a safetensors file: byte 8 is {head[8:9]!r}, where the header begins with b'{{'", origin
        )
    if length > MAX_HEADER:
        raise _error(f"bytes 0 to 7 announce a header of {length} bytes; the limit is {MAX_HEADER}", origin)
    if length > size_of_file - 8:
        raise _error(
            f"the file is truncated: bytes 0 to 7 announce a header of {length} bytes, and {size_of_file - 8} follow",
            origin,
        )
    return 8 + length


def parse(head: bytes, size_of_file: int, origin: str) -> Header:
    """The header in the first bytes of a file (`extent` says how many are needed).

    Raises CheckpointError, which names the byte or the tensor, unless all of this holds: the JSON is of the format and
    has no key twice; names are printable text and no path to elsewhere; the types are known; each shape and type give
    exactly the bytes of the tensor; and the tensors, in the order of their offsets, cover the file to its last byte
    without gap or overlap.  Nothing that is in doubt is skipped: fields the format does not have are refused too.
    """
    first = extent(head, size_of_file, origin)
    if len(head) < first:
        raise _error(f"the header has {first - 8} bytes, and only {max(len(head) - 8, 0)} could be read", origin)
    # A quote within a JSON string is escaped, so this counts the real fields, at the speed of memchr.
    if (count := head.count(b'"data_offsets"', 8, first)) > MAX_TENSORS:
        raise _error(f"the header lists {count} tensors; the limit is {MAX_TENSORS}", origin)
    entries, metadata = _Scan(head, first, origin).header()
    ordered = sorted(entries.items(), key=lambda item: item[1][2:])
    _check_cover(ordered, first, size_of_file, origin)
    return Header(MappingProxyType(dict(ordered)), MappingProxyType(metadata), origin)


class _Scan:
    """One pass over the JSON, from left to right; `at` is a byte of the file."""

    def __init__(self, head: bytes, stop: int, origin: str) -> None:
        self.head, self.at, self.stop, self.origin = head, 8, stop, origin
        self.kinds: dict[tuple[bytes, bytes], tuple[str, tuple[int, ...]]] = {}

    def header(self) -> tuple[dict[str, Entry], dict[str, str]]:
        entries: dict[str, Entry] = {}
        metadata: dict[str, str] | None = None
        self.take(_BRACE, "'{'")
        more = self.head[self.at : self.at + 1] != b"}" or self.at >= self.stop
        self.at += not more
        while more:
            begin = self.at
            match = _TENSOR.match(self.head, begin, self.stop)
            name = self.text(match or self.take(_KEY, "a tensor name in quotes and ':'"), 1)
            if name == "__metadata__":
                if metadata is not None:
                    raise self.error("'__metadata__' appears twice", begin)
                metadata = self.metadata()
                more = self.take(_MORE, "',' or '}'").group(1) == b","
                continue
            if (flaw := _flaw_of_name(name)) is not None:
                raise self.error(flaw, begin)
            if name in entries:
                raise self.error(f"tensor {name!r} is listed twice", begin)
            entries[name] = self.entry(name, match, begin)
            more = self.head[self.at - 1] == ord(",")
        if rest := self.head[self.at : self.stop].strip(b" \t\n\r"):
            raise self.error(f"{len(rest)} bytes of the header lie behind its end", self.at)
        return entries, metadata or {}

    def entry(self, name: str, match: re.Match[bytes] | None, begin: int) -> Entry:
        _, dtype, shape, start, end, _ = match.groups() if match is not None else (None,) * 6
        if match is None or dtype is None or shape is None or start is None or end is None:
            raise self.error(
                f'tensor {name!r} must have once each, and nothing else, "dtype": a name, "shape": a list of at most '
                f'{MAX_DIMENSIONS} whole numbers, "data_offsets": two whole numbers; and then "," or "}}"; found '
                f"{self.head[self.at : min(self.at + 160, self.stop)]!r}",
                begin,
            )
        self.at = match.end()
        key = (dtype, shape)
        kind = self.kinds.get(key)
        if kind is None:  # a model has few of them
            kind = dtype.decode("ascii"), tuple(map(int, shape.split(b","))) if shape else ()
            self.kinds[key] = kind
        entry = Entry(*kind, self.stop + int(start), self.stop + int(end))
        if (flaw := _flaw_of_size(*entry)) is not None:
            raise self.error(f"tensor {name!r} {flaw}", begin)
        return entry

    def metadata(self) -> dict[str, str]:
        result: dict[str, str] = {}
        if self.head.startswith(b"null", self.at):  # what serde writes for an absent option
            self.at += 4
            return result
        self.take(_BRACE, "the '{' of '__metadata__'")
        if self.head[self.at : self.at + 1] == b"}":
            self.at += 1
            return result
        more = True
        while more:
            pair = self.take(_PAIR, "in '__metadata__' a text, ':' and a text")
            key = self.text(pair, 1)
            if key in result or len(result) == MAX_METADATA:
                what = f"key {key[:80]!r} twice" if key in result else f"more than {MAX_METADATA} entries"
                raise self.error(f"'__metadata__' has {what}", pair.start())
            result[key] = self.text(pair, 2)
            more = pair.group(3) == b","
        return result

    def take(self, pattern: re.Pattern[bytes], expected: str) -> re.Match[bytes]:
        match = pattern.match(self.head, self.at, self.stop)
        if match is None:
            found = self.head[self.at : min(self.at + 60, self.stop)]
            raise self.error(f"expected {expected}; found {found!r}", self.at)
        self.at = match.end()
        return match

    def text(self, match: re.Match[bytes], group: int) -> str:
        raw = match.group(group)
        try:
            if b"\\" not in raw:
                return raw.decode("utf-8")
            text: str = json.loads(b'"%b"' % raw)
            text.encode("utf-8")  # an escape can spell half a surrogate pair, which is no text
        except ValueError as error:
            raise self.error(f"a text is not valid: {str(error)[:120]}", match.start(group)) from None
        return text

    def error(self, what: str, at: int) -> CheckpointError:
        return _error(f"the header is malformed at byte {at}: {what}", self.origin)


def _flaw_of_name(name: str) -> str | None:
    if not name or len(name) > MAX_NAME:
        return f"a tensor name has {len(name)} characters; 1 to {MAX_NAME} are allowed"
    if not name.isprintable():
        return f"tensor name {name[:200]!a} holds control characters"
    # No name becomes a path here; a tool that writes one file per tensor might be less careful.
    if name[0] in "/\\" or (".." in name and ".." in name.replace("\\", "/").split("/")):
        return f"tensor name {name[:200]!r} is a path that leads elsewhere"
    return None


def _flaw_of_size(dtype: str, shape: tuple[int, ...], start: int, end: int) -> str | None:
    """All arithmetic on numbers from the file is here, in integers that cannot overflow."""
    bits = BITS.get(dtype)
    if bits is None:
        return f"has the unknown type {dtype!r}; a newer Bestiary may know it"
    elements = math.prod(shape)
    # A dimension of 0 must not hide others that torch could not multiply in 64 bits.
    if (elements or math.prod(size or 1 for size in shape)) * bits >= 2**63:
        return f"has shape {list(shape)}, more than 64 bits can count"
    if end < start:
        return f"ends at byte {end}, before its start at {start}"
    if elements * bits != (end - start) * 8:
        need = f"{elements * bits // 8} bytes" if elements * bits % 8 == 0 else f"{elements * bits} bits"
        return f"of type {dtype} and shape {list(shape)} needs {need}, and its offsets span {end - start} bytes"
    return None


def _check_cover(ordered: list[tuple[str, Entry]], first: int, size_of_file: int, origin: str) -> None:
    at, before = first, "the header"
    for name, entry in ordered:
        if entry.start != at:
            how = "overlaps" if entry.start < at else "leaves a hole behind"
            raise _error(f"tensor {name!r} begins at byte {entry.start} and {how} {before}, which ends at {at}", origin)
        if entry.end > size_of_file:
            raise _error(
                f"the file is truncated: tensor {name!r} ends at byte {entry.end}, the file at {size_of_file}", origin
            )
        at, before = entry.end, f"tensor {name!r}"
    if at != size_of_file:
        raise _error(f"{size_of_file - at} bytes of the file, from byte {at} on, belong to no tensor", origin)


def _error(what: str, origin: str) -> CheckpointError:
    return CheckpointError(what, where=origin, fix=_AGAIN)
