"""Little-endian files from front to back: every length is compared with what is left before it is used."""

from __future__ import annotations

import struct

import numpy
import torch

from bestiary.errors import CheckpointError, shown
from bestiary_quant.calibration.entries import AGAIN, MAX_NAME
from bestiary_quant.gguf.cursor import Buffer

I32, U64 = struct.Struct("<i"), struct.Struct("<Q")


class Reader:
    """A place in the bytes of a whole file."""

    def __init__(self, data: Buffer, origin: str) -> None:
        self.data, self.origin, self.at = data, origin, 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def number(self, form: struct.Struct, what: str, least: int = 0) -> int:
        """A whole number of at least `least`."""
        value: int = form.unpack(self._take(form.size, what))[0]
        if value < least:
            raise self.error(f"{what} is {value}")
        return value

    def text(self, form: struct.Struct, what: str, most: int = MAX_NAME, least: int = 1) -> str:
        """Its length, then printable UTF-8."""
        length = self.number(form, f"the length of {what}")
        if not least <= length <= most:
            raise self.error(f"{what} has {length} bytes; {least} to {most} are allowed")
        try:
            text = self._take(length, what).decode()
        except UnicodeDecodeError:
            raise self.error(f"{what} is not UTF-8") from None
        if not text.isprintable():
            raise self.error(f"{what} holds control characters: {text[:80]!a}")
        return text

    def floats(self, count: int, what: str) -> torch.Tensor:
        """Float32 numbers in memory of their own."""
        start = self.at
        self.skip(4 * count, what)
        return torch.from_numpy(numpy.frombuffer(self.data, "<f4", count, start).astype(numpy.float32, copy=True))

    def skip(self, length: int, what: str) -> None:
        if length > self.left:
            raise self.error(f"{what} needs {length} bytes, and {self.left} are left in the file")
        self.at += length

    def _take(self, length: int, what: str) -> bytes:
        start = self.at
        self.skip(length, what)
        return bytes(self.data[start : self.at])

    def error(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"The importance matrix is malformed at byte {self.at}: {what}.", where=shown(self.origin), fix=AGAIN
        )
