"""Safetensors files that are written as their tensors come, without knowing beforehand which those will be.

The format wants its header first.  Room for it is left, and what remains of the room is filled with spaces, which the
format allows.  Scalars are kept until the end of a file, so that they do not push the data behind them off its
alignment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from bestiary_quant.uqff.form import SUFFIX, VERSION, VERSION_KEYS
from bestiary_quant.uqff.pieces import Piece, u32

_ALIGNMENT = 64
_CHUNK = 1 << 20
_WASTE = 64
"""A file whose header leaves more than this part of its data empty is closed up."""
_ENTRY = 150
"""Bytes that an entry takes in a header at most, beside its name: type, three dimensions and two offsets."""


class Writing:
    """One file that is being written."""

    def __init__(self, path: Path, room: int, metadata: Mapping[str, str], written: Callable[[int], None]) -> None:
        """`room` are the bytes left for the header; `written` hears of every so many bytes."""
        self._start = -(-(8 + room) // _ALIGNMENT) * _ALIGNMENT
        self._entries: dict[str, Any] = {"__metadata__": dict(metadata)}
        self._length = len(json.dumps(self._entries))
        self._small: list[Piece] = []
        self._written = written
        self.nbytes = 0
        """Bytes of data so far."""
        self._file: BinaryIO = path.open("x+b")
        self._file.seek(self._start)

    def fits(self, pieces: Sequence[Piece]) -> bool:
        """Whether the header has room for these entries too."""
        return self._length + sum(len(piece.name) + _ENTRY for piece in pieces) <= self._start - 8

    def add(self, pieces: Sequence[Piece]) -> None:
        """Data is written, and descriptions are kept for the end."""
        for piece in pieces:
            self._length += len(piece.name) + _ENTRY
            if piece.describes:
                self._small.append(piece)
            else:
                self._write(piece)

    def close(self) -> None:
        """Write the rest, the widest scalars first, and the header."""
        for piece in sorted(self._small, key=lambda piece: (piece.dtype == "U8", piece.dtype != "F32", piece.name)):
            self._write(piece)
        header = json.dumps(self._entries, separators=(",", ":")).encode()
        assert len(header) <= self._start - 8
        start = -(-(8 + len(header)) // _ALIGNMENT) * _ALIGNMENT
        if (self._start - start) * _WASTE > self.nbytes:
            self._move(start)
        self._file.seek(0)
        self._file.write((self._start - 8).to_bytes(8, "little") + header.ljust(self._start - 8))
        self._file.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _move(self, start: int) -> None:
        """Bring the data of a small file close behind its header."""
        for at in range(0, self.nbytes, _CHUNK):
            self._file.seek(self._start + at)
            data = self._file.read(_CHUNK)
            self._file.seek(start + at)
            self._file.write(data)
        self._file.truncate(start + self.nbytes)
        self._start = start

    def _write(self, piece: Piece) -> None:
        begin = self.nbytes
        for chunk in piece.chunks():
            data = _bytes(chunk)
            self._file.write(data)
            self.nbytes += len(data)
            self._written(len(data))
        assert self.nbytes - begin == piece.nbytes, piece.name
        self._entries[piece.name] = {
            "dtype": piece.dtype,
            "shape": list(piece.shape),
            "data_offsets": [begin, self.nbytes],
        }


class Shards:
    """`<stem>-0.uqff` and so on: a new one is begun where a layer would take one beyond its size."""

    def __init__(
        self,
        folder: Path,
        stem: str,
        most: int,
        room: int,
        metadata: Mapping[str, str],
        written: Callable[[int], None],
    ) -> None:
        self.names: list[str] = []
        self._folder, self._room, self._metadata, self._written = folder, room, metadata, written
        self._stem, self._most = stem, most
        self._open: Writing | None = None

    def add(self, pieces: Sequence[Piece]) -> None:
        """One layer, which is never parted."""
        size = sum(piece.nbytes for piece in pieces)
        now = self._open
        if now is not None and ((now.nbytes and now.nbytes + size > self._most) or not now.fits(pieces)):
            self.close()
        self.current().add(pieces)

    def current(self) -> Writing:
        """The shard that is being written; a new one, with the version, where there is none."""
        if self._open is None:
            self.names.append(f"{self._stem}-{len(self.names)}{SUFFIX}")
            self._open = Writing(self._folder / self.names[-1], self._room, self._metadata, self._written)
            self._open.add([u32(key, value) for key, value in zip(VERSION_KEYS, VERSION, strict=True)])
        return self._open

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def abandon(self) -> None:
        if self._open is not None:
            self._open.abandon()


def room_for(names: Sequence[str] | None, entries: int) -> int:
    """Bytes of a header that has so many entries for each of these parameters, of which there may be any number."""
    if names is None:
        return 1 << 20
    return 1024 + sum(entries * (len(name) + 24 + _ENTRY) for name in names)


def _bytes(chunk: torch.Tensor) -> memoryview:
    return chunk.contiguous().view(-1).view(torch.uint8).numpy().data
