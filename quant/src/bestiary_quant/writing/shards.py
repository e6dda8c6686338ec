"""Safetensors files of limited size, whose tensors come one at a time.

The header stands before the data, and what it will say is not known before they came: room is left for it, and filled
with spaces, as the format allows (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from bestiary.checkpoints.safetensors_header import BITS
from bestiary.errors import CheckpointError
from bestiary_quant.writing.partial import PartialFiles, told

SHARD = 5 * 1000**3
"""Bytes, as transformers has it."""
ROOM = 4 << 20
"""The most bytes of a header; a shard whose header is full ends."""
_LABEL = '{"__metadata__":{"format":"pt"}}'
INDEX = "model.safetensors.index.json"


@dataclass
class _Shard:
    path: Path
    file: BinaryIO
    room: int
    used: int = len(_LABEL)
    end: int = 0
    entries: dict[str, Any] = field(default_factory=dict)


class Shards:
    """Made with the bytes that the headers of all tensors may take; then `add` for each, and `finish`."""

    def __init__(self, files: PartialFiles, folder: Path, header: int, most: int = SHARD) -> None:
        self._files, self._folder, self._most = files, folder, most
        self._room = -(-(8 + min(header + len(_LABEL), ROOM)) // 8) * 8
        self._shards: list[_Shard] = []
        self._names: set[str] = set()

    def add(self, name: str, dtype: str, shape: tuple[int, ...], chunks: Iterable[memoryview | bytes]) -> int:
        """One tensor of a type of the format, from its bytes in order; how many there were.

        Raises CheckpointError where they are not those of the shape, and for a name that comes twice.
        """
        expected = math.prod(shape) * BITS[dtype] // 8
        if name in self._names:
            raise CheckpointError(f"The tensor {name!r} would be written twice.", where=self._folder)
        self._names.add(name)
        shard = self._shard(header_bytes(name, len(shape)), expected)
        written = 0
        with told(shard.path):
            for chunk in chunks:
                written += shard.file.write(chunk)
        if written != expected:
            raise CheckpointError(f"The tensor {name!r} came as {written} bytes; {expected} are due.")
        offsets = [shard.end, shard.end + written]
        shard.entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        shard.used += header_bytes(name, len(shape))
        shard.end += written
        return written

    def finish(self) -> None:
        """Fill the headers in and name the files; an index is added where there are several."""
        count = len(self._shards)
        places: dict[str, str] = {}
        for number, shard in enumerate(self._shards, 1):
            name = "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
            header = {"__metadata__": {"format": "pt"}, **shard.entries}
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            with told(shard.path):
                shard.file.seek(0)
                shard.file.write((shard.room - 8).to_bytes(8, "little") + text.ljust(shard.room - 8))
            self._files.renamed(shard.path, self._folder / name)
            places.update(dict.fromkeys(shard.entries, name))
        if count > 1:
            index = {"metadata": {"total_size": sum(shard.end for shard in self._shards)}, "weight_map": places}
            self._files.write(self._folder / INDEX, json.dumps(index, indent=2).encode())

    def _shard(self, header: int, nbytes: int) -> _Shard:
        last = self._shards[-1] if self._shards else None
        if last is None or last.used + header > last.room - 8 or (last.end and last.end + nbytes > self._most):
            path = self._folder / f"model-{len(self._shards) + 1:05}.safetensors"
            last = _Shard(path, self._files.open(path), max(self._room, -(-(8 + len(_LABEL) + header) // 8) * 8))
            with told(path):
                last.file.seek(last.room)
            self._shards.append(last)
        return last


def header_bytes(name: str, dimensions: int = 3) -> int:
    """The most bytes that one tensor takes in a header."""
    return len(json.dumps(name, ensure_ascii=False).encode()) + 90 + 14 * dimensions


def stale(folder: Path, written: Mapping[Path, int]) -> list[Path]:
    """Files of weights in a folder that are of no model any more, once others were written beside them."""
    found = [*folder.glob("model*.safetensors"), folder / INDEX]
    return [path for path in found if path not in written and path.is_file()]
