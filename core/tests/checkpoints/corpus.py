"""The hostile safetensors files: each a name, its bytes, and whether it may open."""

import json
import struct
from collections.abc import Iterator
from typing import NamedTuple


class Case(NamedTuple):
    """`opens`: the file is odd but sound, and every tensor of it reads."""

    name: str
    content: bytes
    opens: bool = False


def file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header (text, bytes, or anything for JSON), its length stated truly unless one is given."""
    if not isinstance(header, str | bytes):
        header = json.dumps(header, separators=(",", ":"))
    raw = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


VALID = file(
    {
        "__metadata__": {"format": "pt"},
        "a": entry(),
        "b.weight": entry("BF16", [2, 3], [8, 20]),
        "c": entry("I8", [], [20, 21]),
        "d": entry("BOOL", [3], [21, 24]),
        "empty": entry("F64", [0, 4], [24, 24]),
    },
    bytes(range(21)) + b"\1\0\1",
)
"""A sound file of every kind of shape: the seed of prefixes and mutations."""

GOOD = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
EIGHT = bytes(range(8))


def good(header: str | bytes) -> bytes:
    """A file with this header, in which each @ is the description of a sound tensor of eight bytes."""
    raw = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return file(raw.replace(b"@", GOOD), EIGHT)


def _fields(shape: str = "[2]", offsets: str = "[0,8]", dtype: str = '"F32"') -> str:
    return f'{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}'


def cases() -> Iterator[Case]:
    yield from _lengths()
    yield from _json()
    yield from _numbers()
    yield from _covers()
    yield from _names()
    yield from _strangers()
    yield from _bombs()
    yield from _odd_but_sound()


def _lengths() -> Iterator[Case]:
    yield Case("empty file", b"")
    yield Case("nine bytes", file("{"))
    header = _fields().encode()
    for length in (0, 1, len(header) - 1, len(header) + 1, len(header) + 8, len(header) + 9, 100_000_001, 2**31, 2**32):
        yield Case(f"header length {length}", file(header, EIGHT, length))
    for length in (2**63 - 9, 2**63 - 8, 2**63, 2**64 - 8, 2**64 - 1):
        yield Case(f"header length {length}", file(header, EIGHT, length))
    yield Case("data truncated", VALID[:-1])
    yield Case("one byte too many", VALID + b"\0")
    yield Case("a second file behind", VALID + VALID)


def _json() -> Iterator[Case]:
    for name, header in {
        "list": "[]",
        "text": '"abc"',
        "open": "{",
        "open with space": "{ ",
        "comma": "{,}",
        "trailing comma": '{"a":@,}',
        "no comma": '{"a":@"b":@}',
        "no colon": '{"a"@}',
        "single quotes": "{'a':@}",
        "comment": '{"a":@/**/}',
        "leading space": ' {"a":@}',
        "leading newline": '\n{"a":@}',
        "byte order mark": '\ufeff{"a":@}',
        "trailing junk": '{"a":@}x',
        "trailing zero bytes": '{"a":@}\0\0',
        "two objects": '{"a":@}{}',
        "name open": '{"a',
        "tensor null": '{"a":null}',
        "tensor text": '{"a":"F32"}',
        "tensor list": '{"a":["F32",[2],[0,8]]}',
        "tensor empty": '{"a":{}}',
        "field lacking": '{"a":{"dtype":"F32","shape":[2]}}',
        "field twice": '{"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}',
        "field twice, one lacking": '{"a":{"dtype":"F32","shape":[2],"shape":[2]}}',
        "field unknown": '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}',
        "field escaped": '{"a":{"\\u0064type":"F32","shape":[2],"data_offsets":[0,8]}}',
        "field without comma": '{"a":{"dtype":"F32" "shape":[2],"data_offsets":[0,8]}}',
        "fields with trailing comma": '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],}}',
        "duplicate, same offsets": '{"a":@,"a":@}',
        "duplicate, other type": '{"a":@,"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}}',
        "duplicate by escape": '{"a":@,"\\u0061":@}',
        "metadata twice": '{"__metadata__":{},"__metadata__":{},"a":@}',
        "metadata twice by escape": '{"__metadata__":{},"\\u005f_metadata__":{},"a":@}',
        "metadata key twice": '{"__metadata__":{"x":"1","x":"2"},"a":@}',
        "metadata number": '{"__metadata__":{"x":1},"a":@}',
        "metadata null value": '{"__metadata__":{"x":null},"a":@}',
        "metadata nested": '{"__metadata__":{"x":{}},"a":@}',
        "metadata list": '{"__metadata__":[],"a":@}',
        "metadata text": '{"__metadata__":"x","a":@}',
        "metadata as tensor": '{"__metadata__":@}',
        "metadata lone surrogate": '{"__metadata__":{"x":"\\ud800"},"a":@}',
        "metadata bad escape": '{"__metadata__":{"x":"\\x41"},"a":@}',
        "metadata raw newline": '{"__metadata__":{"x":"\n"},"a":@}',
    }.items():
        yield Case(f"json: {name}", good(header))
    for where in (b'{"\xff":@}', b'{"\xc0\x80":@}', b'{"\xed\xa0\x80":@}', b'{"__metadata__":{"k":"\xf5"},"a":@}'):
        yield Case(f"bad UTF-8 {where[:24]!r}", good(where))
    yield Case("UTF-16", file(_fields().encode("utf-16-le"), EIGHT))


def _numbers() -> Iterator[Case]:
    bad = (
        "-1",
        "-0",
        "2.0",
        "2e0",
        "1e400",
        "02",
        "08",
        "+2",
        "0x2",
        "true",
        "null",
        '"2"',
        "NaN",
        "Infinity",
        "[2]",
        "",
    )
    for number in (*bad, "9" * 20, "9" * 5000, str(2**63), str(2**64), str(2**64 + 2)):
        yield Case(f"dimension {number[:24]}", file(_fields(shape=f"[{number},1]"), EIGHT))
        yield Case(f"end {number[:24]}", file(_fields(offsets=f"[0,{number}]"), EIGHT))
    for bad_shape in ("null", "2", "{}", "[2,]", "[,2]", "[2 2]", "[[2]]", '["2"]', "[2"):
        yield Case(f"shape {bad_shape}", file(_fields(shape=bad_shape), EIGHT))
    for offsets in ("null", "8", "[]", "[0]", "[0,8,8]", "[8,0]", "[-8,0]", "[0,8", "[0,0]", "[1,9]", "[0,7]", "[0,9]"):
        yield Case(f"offsets {offsets}", file(_fields(offsets=offsets), EIGHT))
    for dtype in (
        '"F33"',
        '"f32"',
        '"F32 "',
        '""',
        "null",
        "32",
        '["F32"]',
        '"F8"',
        '"F128"',
        '"' + "F" * 10_000 + '"',
    ):
        yield Case(f"type {dtype[:24]}", file(_fields(dtype=dtype), EIGHT))
    for shape in ([3], [1], [0], [], [2, 2], [2**62], [2**61, 8], [2**32, 2**32], [2**33, 2**31], [2**62, 2**62, 0]):
        yield Case(f"shape {shape} on 8 bytes", file({"a": entry(shape=shape)}, EIGHT))
    yield Case("product wraps to nothing", file({"a": entry("U8", [2**32, 2**32], [0, 0])}))
    yield Case("product wraps to 8", file({"a": entry("U8", [2**61 + 1, 8], [0, 8])}, EIGHT))
    yield Case("zero hides an overflow", file({"a": entry("U8", [0, 2**62, 2**62], [0, 0])}))
    yield Case("33 dimensions", file({"a": entry("U8", [1] * 33, [0, 1])}, b"\0"))
    yield Case("100000 dimensions", file({"a": entry("U8", [1] * 100_000, [0, 1])}, b"\0"))
    yield Case("F4 ends within a byte", file({"a": entry("F4", [3], [0, 1])}, b"\0"))
    yield Case("F6 ends within a byte", file({"a": entry("F6_E2M3", [2], [0, 1])}, b"\0"))
    yield Case("F4 scalar", file({"a": entry("F4", [], [0, 0])}))
    yield Case("F4 odd rows", file({"a": entry("F4", [2, 3], [0, 3])}, b"abc"))
    yield Case("F6 has no torch type", file({"a": entry("F6_E2M3", [4], [0, 3])}, b"abc"))
    yield Case("BOOL 2 and 255", file({"a": entry("BOOL", [2], [0, 2])}, b"\2\xff"))


def _covers() -> Iterator[Case]:
    def two(first: tuple[int, int], second: tuple[int, int], size: int) -> bytes:
        tensors = {
            "a": entry("U8", [max(first[1] - first[0], 0)], first),
            "b": entry("U8", [max(second[1] - second[0], 0)], second),
        }
        return file(tensors, bytes(size))

    yield Case("hole between", two((0, 4), (6, 8), 8))
    yield Case("hole at the beginning", two((2, 4), (4, 8), 8))
    yield Case("hole at the end", two((0, 4), (4, 6), 8))
    yield Case("overlap", two((0, 5), (4, 8), 8))
    yield Case("shared range", two((0, 8), (0, 8), 8))
    yield Case("one within the other", two((0, 8), (2, 4), 8))
    yield Case("reversed", two((4, 0), (4, 8), 8))
    yield Case("behind the end", two((0, 4), (4, 12), 8))
    yield Case("far behind the end", two((0, 4), (2**62, 2**62 + 4), 8))
    yield Case("empty tensor behind the end", two((0, 8), (100, 100), 8))
    yield Case("empty tensor within another", two((0, 8), (4, 4), 8))
    yield Case("no tensors, but data", file("{}", EIGHT))


def _names() -> Iterator[Case]:
    for name in (
        "../../etc/passwd",
        "a/../b",
        "..",
        "..\\..\\x",
        "/etc/passwd",
        "\\\\server\\x",
        "",
        "a\0b",
        "a\nb",
        "\x1b[2J",
        "a\x7f",
        "a\u202eb",
        "a\u2028b",
        "\ud800",
        "a" * 1025,
        "a" * 1_000_000,
    ):
        yield Case(f"name {name[:24]!a}", file({name: entry()}, EIGHT))


def _strangers() -> Iterator[Case]:
    yield Case(
        "pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 8\n"
    )
    yield Case("web page", b"<!DOCTYPE html><html><body>Sign in</body></html>")
    yield Case("zip", b"PK\x03\x04" + bytes(26) + b"archive/data.pkl" + bytes(100))
    yield Case("pickle", b"\x80\x02}q\x00." + bytes(20))
    yield Case("NumPy", b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O'}" + bytes(100))
    yield Case("GGUF", b"GGUF\x03\0\0\0" + bytes(100))
    yield Case("PNG", b"\x89PNG\r\n\x1a\n" + bytes(100))
    yield Case("zeros", bytes(4096))
    yield Case("all ones", b"\xff" * 4096)


def _bombs() -> Iterator[Case]:
    mega = 1 << 20
    yield Case("lists 100000 deep in a shape", file(_fields(shape="[" * 100_000 + "]" * 100_000), EIGHT))
    yield Case("objects 100000 deep", file('{"a":' * 100_000 + "}" * 100_000))
    yield Case("metadata 100000 deep", file('{"__metadata__":' + '{"a":' * 100_000 + "}" * 100_001))
    yield Case("16 MB of brackets", file(b'{"a":' + b"[" * (16 * mega)))
    yield Case("16 MB of empty lists", file(b'{"a":[' + b"[]," * (5 * mega) + b"0]}"))
    yield Case("16 MB of dimensions", file(b'{"a":{"dtype":"U8","shape":[' + b"0," * (8 * mega) + b"0]"))
    yield Case("16 MB of digits", file(b'{"a":{"dtype":"U8","shape":[' + b"9" * (16 * mega) + b"]"))
    yield Case("16 MB of space", file(b"{" + b" " * (16 * mega)))
    yield Case("16 MB of backslashes", file(b'{"' + b"\\" * (16 * mega)))
    yield Case("16 MB of an open name", file(b'{"' + b"a" * (16 * mega)))
    yield Case("16 MB of a closed name", good(b'{"' + b"a" * (16 * mega) + b'":@}'))
    empty = '"%07d":{"dtype":"U8","shape":[],"data_offsets":[0,0]}'
    yield Case("a million tensors", file("{" + ",".join(empty % number for number in range(1_000_000)) + "}"))
    pairs = ",".join(f'"{number}":""' for number in range(200_000))
    yield Case("200000 metadata entries", good('{"__metadata__":{' + pairs + '},"a":@}'))


def _odd_but_sound() -> Iterator[Case]:
    yield Case("valid", VALID, True)
    yield Case("no tensors", file("{}"), True)
    yield Case("no tensors, spaces", file("{   }  "), True)
    yield Case("metadata only", file('{"__metadata__":{}}'), True)
    yield Case("metadata null", good('{"__metadata__":null,"a":@}'), True)
    yield Case("metadata of a megabyte", file({"__metadata__": {"x": '{"[,' * 250_000}, "a": entry()}, EIGHT), True)
    yield Case("spaces", file(json.dumps({"a": entry()}, indent=4) + " \n\t ", EIGHT), True)
    yield Case("other order of fields", file('{"a":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"}}', EIGHT), True)
    yield Case(
        "other order of tensors", file({"b": entry("U8", [4], [4, 8]), "a": entry("U8", [4], [0, 4])}, EIGHT), True
    )
    yield Case("unaligned", good('{"a":@} '), True)
    yield Case(
        "unaligned after a byte", file({"a": entry("U8", [1], [0, 1]), "b": entry(offsets=[1, 9])}, b"x" * 9), True
    )
    yield Case("NaN and infinity", file({"a": entry()}, b"\0\0\xc0\x7f\0\0\x80\x7f"), True)
    yield Case("32 dimensions", file({"a": entry("U8", [1] * 32, [0, 1])}, b"\0"), True)
    yield Case("empty of a large shape", file({"a": entry("U8", [0, 2**40], [0, 0])}), True)
    yield Case(
        "empty between",
        file({"a": entry(), "b": entry("F64", [0], [8, 8]), "c": entry("U8", [], [8, 9])}, b"y" * 9),
        True,
    )
    yield Case("name escaped", good('{"\\u0061\\/\\"":@}'), True)
    yield Case("name not ASCII", good('{"слой.重み":@}'), True)
    yield Case("name with dots", good('{"a..b...c/.d":@}'), True)
    yield Case("length begins as a pickle", good('{"a":@}'.ljust(640 + 1 - len(GOOD))), True)
