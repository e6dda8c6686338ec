"""Hostile importance matrices: name of the file, content, words of the error; None where it is sound."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

F32, F16, STRING, ARRAY, U32, I64 = 0, 1, 8, 9, 4, 11
HUGE = (1 << 31) - 1


class Case(NamedTuple):
    name: str
    file: str
    content: bytes
    says: str | None


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


# llama.cpp's older form


def entry(name: bytes, calls: int, *values: float, length: int | None = None, count: int | None = None) -> bytes:
    head = struct.pack("<i", len(name) if length is None else length) + name
    return head + struct.pack("<ii", calls, len(values) if count is None else count) + floats(*values)


def legacy(*entries: bytes, count: int | None = None, end: bytes = b"") -> bytes:
    return struct.pack("<i", len(entries) if count is None else count) + b"".join(entries) + end


SOUND = legacy(entry(b"blk.0.attn_q.weight", 2, 1.0, 2.0), end=struct.pack("<ii4s", 2, 4, b"text"))

# That of mistral.rs


def layer(key: bytes, *values: float, length: int | None = None, count: int | None = None) -> bytes:
    head = struct.pack("<Q", len(key) if length is None else length) + key
    return head + struct.pack("<Q", len(values) if count is None else count) + floats(*values)


def cimatrix(*layers: bytes, count: int | None = None) -> bytes:
    return struct.pack("<Q", len(layers) if count is None else count) + b"".join(layers)


KEYED = cimatrix(layer(b"model.layers.0.self_attn.q_proj", 1.0, 2.0))

# GGUF


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: bytes, shape: tuple[int, ...], offset: int, kind: int = F32) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


TYPE = pair(b"general.type", STRING, text(b"imatrix"))


def gguf(pairs: list[bytes], tensors: list[bytes], data: bytes, counts: tuple[int, int] | None = None) -> bytes:
    announced = counts or (len(tensors), len(pairs))
    header = b"GGUF" + struct.pack("<IQQ", 3, *announced) + b"".join(pairs) + b"".join(tensors)
    return header + b"\0" * (-len(header) % 32) + data


def sums(
    values: tuple[float, ...] = (1.0, 2.0),
    counts: tuple[float, ...] = (1.0,),
    *,
    names: tuple[bytes, bytes] = (b"blk.0.attn_q.weight.in_sum2", b"blk.0.attn_q.weight.counts"),
    pairs: list[bytes] | None = None,
    kind: int = F32,
) -> bytes:
    data = floats(*values).ljust(32, b"\0") + floats(*counts)
    tensors = [tensor(names[0], (len(values),), 0, kind), tensor(names[1], (1, len(counts)), 32)]
    return gguf([TYPE] if pairs is None else pairs, tensors, data)


NEWER = sums()


def cases() -> Iterator[Case]:
    yield from _legacy()
    yield from _keyed()
    yield from _newer()


def _legacy() -> Iterator[Case]:
    nan, inf = float("nan"), float("inf")
    one = entry(b"a", 1, 1.0)
    for name, content, says in (
        ("sound", SOUND, None),
        ("empty", b"", "empty"),
        ("zeros", bytes(4096), "count of weights is 0"),
        ("negative count", legacy(count=-1), "is -1"),
        ("huge count", legacy(one, count=HUGE), "are announced"),
        ("count beyond the file", legacy(one, count=2), "are announced"),
        ("negative name", legacy(entry(b"a", 1, 1.0, length=-5)), "is -5"),
        ("huge name", legacy(entry(b"a", 1, 1.0, length=HUGE)), "bytes; 1 to 1024 are allowed"),
        ("name beyond the file", legacy(entry(b"a", 1, 1.0, length=500)), "are left in the file"),
        ("no name", legacy(entry(b"", 1, 1.0, 1.0)), "has 0 bytes"),
        ("name of bytes", legacy(entry(b"\xff\xfe", 1, 1.0)), "not UTF-8"),
        ("name of controls", legacy(entry(b"a\x1b[2J", 1, 1.0)), "control characters"),
        ("negative calls", legacy(entry(b"a", -1, 1.0)), "is -1"),
        ("negative numbers", legacy(entry(b"a", 1, 1.0, count=-1)), "is -1"),
        ("no numbers", legacy(entry(b"a", 1, count=0), end=bytes(8)), "is 0"),
        ("huge numbers", legacy(entry(b"a", 1, 1.0, count=HUGE)), "are left in the file"),
        ("not a number", legacy(entry(b"a", 1, nan)), "negative or not finite"),
        ("infinite", legacy(entry(b"a", 1, inf)), "negative or not finite"),
        ("overflowing", legacy(entry(b"a", 1, 3e38)), "negative or not finite"),
        ("negative", legacy(entry(b"a", 1, -1.0)), "negative or not finite"),
        ("twice", legacy(one, one), "comes twice"),
        ("two names of one", legacy(entry(b"output.weight", 1, 1.0), entry(b"lm_head.weight", 1, 1.0)), "Two weights"),
        ("huge dataset", legacy(one, end=struct.pack("<ii", 1, HUGE)), "0 to 65536 are allowed"),
        ("negative dataset", legacy(one, end=struct.pack("<ii", 1, -1)), "is -1"),
        ("more behind", SOUND + b"\0", "follow the end"),
        ("pickle", b"\x80\x04\x95" + bytes(64), "are announced"),
        ("no calls", legacy(entry(b"a", 0, 1.0)), None),
        ("too many weights", legacy(*(entry(b"w%d" % number, 1, 1.0) for number in range(8193))), "8192 are allowed"),
        ("many weights", legacy(*(entry(b"w%d" % number, 1, 1.0) for number in range(8192))), None),
    ):
        yield Case(name, "case.dat", content, says)


def _keyed() -> Iterator[Case]:
    one = layer(b"a", 1.0)
    for name, content, says in (
        ("sound", KEYED, None),
        ("no layers", cimatrix(), "count of layers is 0"),
        ("huge count", cimatrix(one, count=(1 << 64) - 1), "are announced"),
        ("huge key", cimatrix(layer(b"a", 1.0, length=(1 << 64) - 1)), "bytes; 1 to 1024 are allowed"),
        ("huge numbers", cimatrix(layer(b"a", 1.0, count=1 << 62)), "are left in the file"),
        ("no numbers", cimatrix(layer(b"a", count=0), layer(b"b", count=0)), "are announced"),
        ("negative", cimatrix(layer(b"a", -1.0)), "negative or not finite"),
        ("twice", cimatrix(one, one), "comes twice"),
        ("more behind", KEYED + b"\0\0", "follow the end"),
    ):
        yield Case(f"keyed {name}", "case.cimatrix", content, says)


def _newer() -> Iterator[Case]:
    base = b"blk.0.attn_q.weight"
    lone = gguf([TYPE], [tensor(base + b".in_sum2", (2,), 0)], floats(1, 2))
    counted = gguf(
        [TYPE], [tensor(b"b.in_sum2", (1,), 0), tensor(b"b.counts", (1,), 32), tensor(b"a.counts", (1,), 64)], bytes(96)
    )
    places = [tensor(b"t%d" % number, (1,), 32 * number) for number in range(60_000)]
    crowd = gguf([TYPE], [*places, tensor(b"a.in_sum2", (1,), 32 * 60_000)], bytes(32 * 60_001))
    many = pair(b"imatrix.datasets", ARRAY, struct.pack("<IQ", STRING, 1 << 60))
    for name, content, says in (
        ("sound", NEWER, None),
        ("without a type", sums(pairs=[]), None),
        ("of a model", sums(pairs=[pair(b"general.type", STRING, text(b"model"))]), "no importance matrix"),
        ("type that is a number", sums(pairs=[pair(b"general.type", U32, bytes(4))]), "a string"),
        ("no tensors", gguf([TYPE], [], b""), "no importance matrix"),
        ("huge count of tensors", gguf([TYPE], [], b"", counts=(1 << 60, 1)), "are announced"),
        ("huge datasets", sums(pairs=[TYPE, many]), "counts"),
        ("too many tensors", crowd, "60001 tensors are announced; 24576 are allowed"),
        ("no counts", lone, "has no counts"),
        ("no sums", counted, "has no sums"),
        ("no name", sums(names=(b".in_sum2", b".counts")), "has no name"),
        ("another type", sums(kind=F16), "rows of F32 are due"),
        ("counts that do not divide", sums((1, 2, 3), (1, 1)), "numbers for 2 counts"),
        ("negative counts", sums(counts=(-1,)), "counts that are negative"),
        ("counts that are no numbers", sums(counts=(float("nan"),)), "counts that are negative"),
        ("infinite counts", sums(counts=(float("inf"),)), "counts that are negative"),
        ("negative sums", sums((-1, 2)), "negative or not finite"),
        ("sums that are no numbers", sums((float("nan"), 2)), "negative or not finite"),
        ("sums beyond the file", gguf([TYPE], [tensor(base + b".in_sum2", (1 << 40,), 0)], bytes(64)), "truncated"),
        ("chunks of words", sums(pairs=[TYPE, pair(b"imatrix.chunk_count", STRING, text(b"x"))]), "a whole number"),
        ("negative chunks", sums(pairs=[TYPE, pair(b"imatrix.chunk_size", I64, struct.pack("<q", -5))]), None),
    ):
        yield Case(f"gguf {name}", "case.gguf", content, says)
