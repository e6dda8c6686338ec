"""Reading a header from front to back: every length is compared with what is left before anything is done with it."""

from __future__ import annotations

import mmap
import struct

from bestiary.errors import CheckpointError
from bestiary_quant.gguf.string_array import span

Buffer = bytes | mmap.mmap
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
AGAIN = "fetch the file again; if it was made by a conversion, convert it again"


class Incomplete(Exception):
    """The bytes at hand end before the header does, and the file goes on: read more of it and parse again."""


class Cursor:
    """A place in `data`, the whole of a file of `size` bytes or its beginning."""

    def __init__(self, data: Buffer, size: int, origin: str) -> None:
        self.data, self.size, self.origin, self.at = data, size, origin, 0

    def number(self, form: struct.Struct, what: str) -> int:
        """The next number.  Raises CheckpointError where the file ends, Incomplete where only the data does."""
        start = self.at
        self.skip(form.size, what)
        value: int = form.unpack_from(self.data, start)[0]
        return value

    def text(self, what: str, most: int) -> str:
        """The next string: its length in 8 bytes, then UTF-8 of 1 to `most` bytes without control characters."""
        length = self.number(U64, f"the length of {what}")
        if not 0 < length <= most:
            raise self.error(f"{what} has {length} bytes; 1 to {most} are allowed")
        start = self.at
        self.skip(length, what)
        try:
            text = self.data[start : self.at].decode()
        except UnicodeDecodeError:
            raise self.error(f"{what} is not UTF-8") from None
        if not text.isprintable():
            raise self.error(f"{what} holds control characters: {text[:80]!a}")
        return text

    def skip(self, length: int, what: str) -> None:
        """Step over bytes that must be there."""
        end = self.at + length
        if end > self.size:
            raise self.error(f"{what} needs {length} bytes, and {self.size - self.at} are left in the file")
        if end > len(self.data):
            raise Incomplete
        self.at = end

    def skip_strings(self, count: int, what: str) -> None:
        """Step over strings."""
        if count > (self.size - self.at) // U64.size:
            raise self.error(f"{what} counts {count} strings, and {self.size - self.at} bytes are left in the file")
        if (length := span(self.data, self.at, count)) is not None:
            self.skip(length, what)
            return
        at, data, length_at = self.at, self.data, U64.unpack_from
        try:
            for _ in range(count):
                at += 8 + length_at(data, at)[0]
        except (struct.error, OverflowError):  # beyond the data; an absurd length leads there in one step
            pass
        else:
            self.skip(at - self.at, what)
            return
        if len(data) < self.size and at <= self.size:
            raise Incomplete
        raise self.error(f"{what} goes on beyond the end of the file")

    def error(self, what: str) -> CheckpointError:
        return CheckpointError(f"The header is malformed at byte {self.at}: {what}.", where=self.origin, fix=AGAIN)
