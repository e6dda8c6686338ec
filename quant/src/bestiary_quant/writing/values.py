"""Values of GGUF metadata as their bytes: the number of the type, and what the type has behind it.

The numbers are those of `gguf_metadata_value_type` (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from bestiary_quant.gguf.metadata import Metadata

Pairs = dict[str, bytes]
"""Keys, and their values as bytes."""

_U16, _U32, _I32, _F32, _BOOL, _STRING, _ARRAY, _U8 = 2, 4, 5, 6, 7, 8, 9, 0
_DROPPED = ("split.", "general.alignment", "general.file_type", "general.quantization_version")
"""Of a file that is written anew: how it was cut, laid out and quantised."""


def string(text: str) -> bytes:
    """A string as it stands in arrays, in keys and in names: its length, and UTF-8."""
    raw = text.encode("utf-8", "replace")
    return struct.pack("<Q", len(raw)) + raw


def u16(value: int) -> bytes:
    return struct.pack("<IH", _U16, value)


def u32(value: int) -> bytes:
    return struct.pack("<II", _U32, value)


def i32(value: int) -> bytes:
    return struct.pack("<Ii", _I32, value)


def f32(value: float) -> bytes:
    return struct.pack("<If", _F32, value)


def flag(value: bool) -> bytes:
    return struct.pack("<I?", _BOOL, value)


def text(value: str) -> bytes:
    return struct.pack("<I", _STRING) + string(value)


def texts(values: Sequence[str]) -> bytes:
    return struct.pack("<IIQ", _ARRAY, _STRING, len(values)) + b"".join(map(string, values))


def flags(values: Sequence[bool]) -> bytes:
    return struct.pack(f"<IIQ{len(values)}?", _ARRAY, _BOOL, len(values), *values)


def whole_numbers(values: Sequence[int]) -> bytes:
    return struct.pack(f"<IIQ{len(values)}i", _ARRAY, _I32, len(values), *values)


def numbers(values: Sequence[float]) -> bytes:
    return struct.pack(f"<IIQ{len(values)}f", _ARRAY, _F32, len(values), *values)


def raw_bytes(value: bytes) -> bytes:
    return struct.pack("<IIQ", _ARRAY, _U8, len(value)) + value


def copied(metadata: Metadata) -> Pairs:
    """The pairs of a file, byte for byte, without those that only say how it was written."""
    return {key: value for key, value in _raw(metadata) if not key.startswith(_DROPPED)}


def _raw(metadata: Metadata) -> Iterable[tuple[str, bytes]]:
    for key in metadata:
        kind, length, value = metadata.raw(key)
        head = struct.pack("<I", kind) if length is None else struct.pack("<IIQ", _ARRAY, kind, length)
        yield key, head + value


def encoded(pairs: Mapping[str, bytes]) -> bytes:
    """All pairs, one behind the other."""
    return b"".join(string(key) + value for key, value in pairs.items())
