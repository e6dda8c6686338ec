"""Hostile GGUF files, each with words of the error that it must give; None where it is harmless and must open."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

F32, Q4_0, Q4_K = 0, 2, 12
STRING, ARRAY = 8, 9
DATA = bytes(range(64))


class Case(NamedTuple):
    name: str
    content: bytes
    says: str | None


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def array(key: str, kind: int, count: int, items: bytes = b"") -> bytes:
    return pair(key, ARRAY, struct.pack("<IQ", kind, count) + items)


def tensor(name: str | bytes, shape: tuple[int, ...] = (4,), kind: int = F32, offset: int = 0) -> bytes:
    """Dimensions in the file's order: columns first."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file(
    pairs: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    data: bytes = DATA,
    *,
    counts: tuple[int, int] | None = None,
    magic: bytes = b"GGUF\3\0\0\0",
    alignment: int = 32,
) -> bytes:
    """A file, sound unless its parts are not; `counts` are those of tensors and pairs that it announces."""
    pairs = [pair("general.architecture", STRING, text("llama"))] if pairs is None else pairs
    tensors = [tensor("a"), tensor("b", (2, 2), offset=32)] if tensors is None else tensors
    announced = counts or (len(tensors), len(pairs))
    header = magic + struct.pack("<QQ", *announced) + b"".join(pairs) + b"".join(tensors)
    return header + b"\0" * (-len(header) % alignment) + data


VALID = file()


def aligned(value: bytes, kind: int = 4, alignment: int = 32) -> bytes:
    return file([pair("general.alignment", kind, value)], alignment=alignment)


def cases() -> Iterator[Case]:
    yield Case("sound", VALID, None)
    yield from _beginnings()
    yield from _metadata()
    yield from _tensors()
    yield from _places()


def _beginnings() -> Iterator[Case]:
    yield Case("empty", b"", "empty")
    yield Case("not GGUF", b"GGML" + VALID[4:], "not a GGUF file")
    yield Case("web page", b"<!DOCTYPE html><html>" + bytes(100), "web page")
    yield Case("pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull")
    yield Case("zip", b"PK\3\4" + bytes(100), "run code")
    yield Case("version 0", file(magic=b"GGUF\0\0\0\0"), "version 0")
    yield Case("big-endian", file(magic=b"GGUF\0\0\0\3"), "big-endian")
    for count in (1 << 63, (1 << 64) - 1, 1 << 40, 70_000):
        yield Case(f"{count} pairs", file(counts=(2, count)), "pairs of metadata")
        yield Case(f"{count} tensors", file(counts=(count, 1)), "tensors are announced")
    yield Case("one pair more than there are", file(counts=(2, 2)), "malformed")
    yield Case("one tensor more than there are", file(counts=(3, 1), data=bytes(64)), "malformed")
    yield Case("no tensors", file(tensors=[], data=b""), None)


def _metadata() -> Iterator[Case]:
    def given(name: str, says: str | None, *pairs: bytes) -> Case:
        return Case(name, file(list(pairs)), says)

    for count in (1 << 40, 1 << 61, (1 << 64) - 1):
        yield given(f"array of {count} numbers", "are left in the file", array("a", 4, count))
        yield given(f"array of {count} strings", "strings", array("a", STRING, count))
        yield given(f"string of {count} bytes", "are left in the file", pair("a", STRING, struct.pack("<Q", count)))
        yield given(f"key of {count} bytes", "bytes; 1 to", struct.pack("<Q", count) + b"a")
    yield given("1000 strings in 100 bytes", "counts 1000 strings, and", array("a", STRING, 1000))
    nested = array("a", ARRAY, 1, struct.pack("<IQ", ARRAY, 1) * 2000)
    yield given("nested arrays", "array of arrays", nested)
    yield given("empty array of arrays", "array of arrays", array("a", ARRAY, 0))
    yield given("unknown type", "unknown type 13", pair("a", 13, bytes(8)))
    yield given("unknown type of items", "unknown type 4294967295", array("a", 2**32 - 1, 1, bytes(8)))
    yield given("key twice", "comes twice", pair("a", 0, b"\1"), pair("a", 0, b"\2"))
    yield given("empty key", "has 0 bytes", pair("", 0, b"\1"))
    yield given("key of control characters", "control characters", pair("a\x1b[2J", 0, b"\1"))
    yield given("key that is no text", "not UTF-8", pair(b"\xff\xfe", 0, b"\1"))
    yield given("empty arrays", None, array("a", STRING, 0), array("b", 6, 0))
    yield given(
        "string within strings goes too far", "are left in the file", array("a", STRING, 2, text("x") + b"\xff" * 8)
    )
    yield given("strings end with the file", "beyond the end", array("a", STRING, 9, text("x" * 30)))
    for name, value, kind in (
        ("0", struct.pack("<I", 0), 4),
        ("1", struct.pack("<I", 1), 4),
        ("3", struct.pack("<I", 3), 4),
        ("48", struct.pack("<I", 48), 4),
        ("2^31", struct.pack("<I", 1 << 31), 4),
        ("2^63", struct.pack("<Q", 1 << 63), 10),
        ("-32", struct.pack("<i", -32), 5),
        ("a string", text("32"), STRING),
        ("a float", struct.pack("<f", 32.0), 6),
        ("an array", struct.pack("<IQI", 4, 1, 32), ARRAY),
    ):
        yield Case(f"alignment {name}", aligned(value, kind), "lignment")
    yield Case(
        "alignment 64", file([pair("general.alignment", 4, struct.pack("<I", 64))], alignment=64), "alignment 64"
    )
    yield Case("alignment 16", aligned(struct.pack("<I", 16), alignment=16), None)


def _tensors() -> Iterator[Case]:
    def given(name: str, says: str | None, *tensors: bytes, data: bytes = DATA) -> Case:
        return Case(name, file(tensors=list(tensors), data=data), says)

    yield given("tensor twice", "comes twice", tensor("a"), tensor("a", offset=32))
    yield given("empty name", "has 0 bytes", tensor(""))
    yield given("long name", "has 1025 bytes", tensor("a" * 1025))
    yield given("name of control characters", "control characters", tensor("a\0b"))
    yield given("name that is no text", "not UTF-8", tensor(b"\xc3("))
    yield given("five dimensions", "has 5 dimensions", tensor("a", (1, 1, 1, 1, 1)))
    yield given("2^32 - 1 dimensions", "dimensions", text("a") + b"\xff" * 4 + bytes(64))
    yield given("a dimension of 0", "impossible shape", tensor("a", (4, 0)))
    yield given("a dimension of 0 hides a large one", "impossible shape", tensor("a", (1 << 63, 0)))
    yield given("dimensions whose product wraps to 4", "impossible shape", tensor("a", ((1 << 62) + 1, 4)))
    yield given("2^63 numbers", "impossible shape", tensor("a", (1 << 63,)))
    yield given("2^62 numbers", "truncated", tensor("a", (1 << 62,)))
    yield given("exabytes of blocks", "truncated", tensor("a", (1 << 30, 1 << 30), Q4_0))
    for code in (4, 5, 31, 33, 36, 38):
        yield given(f"removed type {code}", "no longer has it", tensor("a", kind=code))
    for code in (42, 1000, 2**32 - 1):
        yield given(f"unknown type {code}", "newer bestiary-quant", tensor("a", kind=code))
    yield given("a row that is no whole blocks", "blocks of 32", tensor("a", (33, 2), Q4_0), data=bytes(1000))
    yield given("a row of half a block", "blocks of 256", tensor("a", (128, 2), Q4_K), data=bytes(1000))
    yield given("one number without dimensions", None, tensor("a", ()))
    yield given("one block without dimensions", "blocks of 32", tensor("a", (), Q4_0))


def _places() -> Iterator[Case]:
    def given(name: str, says: str | None, *tensors: bytes, data: bytes = DATA) -> Case:
        return Case(name, file(tensors=list(tensors), data=data), says)

    for offset in (1 << 64) - 32, 1 << 63, 1 << 62, 64:
        yield given(f"offset {offset}", "truncated", tensor("a", offset=offset))
    yield given("offset that is not aligned", "no multiple of the alignment", tensor("a", offset=4))
    yield given("two tensors in one place", "overlap", tensor("a"), tensor("b"))
    yield given("a tensor over the next", "overlap", tensor("a", (9,)), tensor("b", offset=32))
    yield given("a tensor within another", "overlap", tensor("a", (16,)), tensor("b", (1,), offset=32))
    yield given("one byte too few", "truncated", tensor("a", (16,)), data=bytes(63))
    yield given("no data", "truncated", tensor("a"), data=b"")
    yield given("tensors out of order", None, tensor("a", offset=32), tensor("b"))
    yield given("bytes of no tensor", None, tensor("a"), data=bytes(1000))
