"""The key-value pairs of a GGUF file: found in one walk, read when they are asked for.

A vocabulary with its merges is hundreds of thousands of strings; opening a file steps over them and makes no object
of any.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from bestiary.errors import CheckpointError, shown
from bestiary_quant.gguf import string_array
from bestiary_quant.gguf.cursor import U32, U64, Buffer, Cursor

if TYPE_CHECKING:
    import numpy

    Value = int | float | bool | str | list[str] | numpy.ndarray

MAX_PAIRS = 1 << 16
MAX_KEY = 65_535
"""Bytes; the limit of the format."""
MAX_STRINGS = 1 << 23
"""In all arrays of a file; the largest vocabularies have 800,000 with their merges."""

_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS: Mapping[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    _BOOL: struct.Struct("<?"),
    10: U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
"""By the number of the type in the file (`gguf_metadata_value_type` of the format)."""


class _Place(NamedTuple):
    """Where a value lies: of an array `length` items of type `kind`, of anything else one (`length` None)."""

    kind: int
    length: int | None
    start: int
    end: int


class Metadata(Mapping[str, "Value"]):
    """The pairs by key.  Each access reads the value anew: arrays of numbers as NumPy arrays, of strings as lists.

    Raises CheckpointError for a string that is not UTF-8.
    """

    def __init__(self, data: Buffer, places: Mapping[str, _Place], origin: str) -> None:
        self._data, self._places, self.origin = data, places, origin

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:  # that of Mapping would read the value
        return key in self._places

    def __getitem__(self, key: str) -> Value:
        kind, count, start, end = self._places[key]
        if kind == _STRING:
            return self._texts(key, start, end, 1)[0] if count is None else self._texts(key, start, end, count)
        form = _NUMBERS[kind]
        if count is None:
            value: int | float | bool = form.unpack_from(self._data, start)[0]
            return value
        import numpy

        return numpy.frombuffer(self._data, numpy.dtype(form.format), count, start).copy()

    def on(self, data: Buffer) -> Metadata:
        """The pairs of the same file, mapped anew."""
        return Metadata(data, self._places, self.origin)

    def raw(self, key: str) -> tuple[int, int | None, bytes]:
        """The type of a value, its length where it is an array, and its bytes in the file."""
        kind, length, start, end = self._places[key]
        return kind, length, bytes(self._data[start:end])

    def count(self, key: str) -> int | None:
        """The length of an array, without reading it; None for what is no array or not there."""
        place = self._places.get(key)
        return None if place is None else place.length

    def halves(self, key: str) -> list[tuple[str, str]] | None:
        """An array of strings of which each has one space inside, parted there; None: it is none, or of others."""
        kind, count, start, end = self._places[key]
        return string_array.halves(self._data[start:end], count) if kind == _STRING and count is not None else None

    @property
    def architecture(self) -> str | None:
        """`general.architecture`: what the model is, and what the keys of its sizes begin with."""
        return self.text("general.architecture", most=100)

    def text(self, key: str, most: int = 1 << 20) -> str | None:
        """A string of up to `most` bytes, or None where the key is absent.

        Raises CheckpointError for a longer one or another type, as `whole` and `number` do.
        """
        place = self._places.get(key)
        if place is not None and place.kind == _STRING and place.length is None and place.end - place.start - 8 > most:
            raise self._unfit(key, f"a string of up to {most} bytes", f"{place.end - place.start - 8} bytes")
        value = self._single(key)
        if value is not None and not isinstance(value, str):
            raise self._unfit(key, "a string", value)
        return value

    def whole(self, key: str) -> int | None:
        """A whole number of any width."""
        value = self._single(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self._unfit(key, "a whole number", value)
        return value

    def number(self, key: str) -> float | None:
        """A finite number."""
        value = self._single(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._unfit(key, "a finite number", value)
        return value

    def _single(self, key: str) -> int | float | bool | str | None:
        place = self._places.get(key)
        if place is None:
            return None
        if place.length is not None:
            raise self._unfit(key, "a single value", f"an array of {place.length}")
        value = self[key]
        return value if isinstance(value, int | float | bool | str) else None

    def _texts(self, key: str, start: int, end: int, count: int) -> list[str]:
        raw, at, texts = self._data[start:end], 0, list[str]()
        if (whole := string_array.texts(raw, count)) is not None:
            return whole
        try:
            for _ in range(count):
                stop = at + 8 + U64.unpack_from(raw, at)[0]
                texts.append(raw[at + 8 : stop].decode())
                at = stop
        except UnicodeDecodeError:
            raise CheckpointError(
                f"String {len(texts)} of the metadata {key[:200]!r} is not UTF-8.", where=self.origin
            ) from None
        return texts

    def _unfit(self, key: str, due: str, value: object) -> CheckpointError:
        return CheckpointError(f"The metadata {key[:200]!r} is {shown(value)}; {due} is due.", where=self.origin)


def read_metadata(cursor: Cursor, count: int) -> Metadata:
    """Step over `count` pairs.  Raises CheckpointError for a malformed one or a key that comes twice."""
    # The smallest pair: the length of its key, one character, the type, and a value of one byte.
    if count > MAX_PAIRS or count > (cursor.size - cursor.at) // 14:
        raise cursor.error(f"{count} pairs of metadata are announced; {MAX_PAIRS} are allowed, if they fit the file")
    places: dict[str, _Place] = {}
    strings = 0
    for _ in range(count):
        key = cursor.text("a key of the metadata", MAX_KEY)
        if key in places:
            raise cursor.error(f"the metadata key {key[:200]!r} comes twice")
        places[key] = place = _read_place(cursor, f"the metadata {key[:200]!r}", MAX_STRINGS - strings)
        strings += place.length or 0 if place.kind == _STRING else 0
    return Metadata(cursor.data, places, cursor.origin)


def _read_place(cursor: Cursor, what: str, most_strings: int) -> _Place:
    kind, count = cursor.number(U32, f"the type of {what}"), None
    if kind == _ARRAY:
        kind = cursor.number(U32, f"the type of items of {what}")
        count = cursor.number(U64, f"the length of {what}")
        if kind == _ARRAY:
            raise cursor.error(f"{what} is an array of arrays, which no reader of the format takes")
    if kind != _STRING and kind not in _NUMBERS:
        raise cursor.error(f"{what} has the unknown type {kind}")
    start = cursor.at
    if kind != _STRING:
        cursor.skip(_NUMBERS[kind].size * (1 if count is None else count), what)
    elif count is not None and count > most_strings:
        raise cursor.error(f"{what} counts {count} strings; {MAX_STRINGS} are allowed in a file")
    else:
        cursor.skip_strings(1 if count is None else count, what)
    return _Place(kind, count, start, cursor.at)
