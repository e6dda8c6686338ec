"""The files of mistral.rs (`.cimatrix`).

    uint64 count, then for each layer: uint64 length, key, uint64 numbers, float32 mean * calls for each

As in `CollectedImatrixData` of mistralrs-quant/src/imatrix.rs (https://github.com/EricLBuehler/mistral.rs).  A key is
the name of a parameter without ".weight"; the numbers of all experts of a stack follow each other, zeros for those that
no row came to.  Nothing tells the calls, and their number is the same for all columns: so it does not matter.
"""

from __future__ import annotations

from typing import BinaryIO

import torch

from bestiary_quant.calibration.entries import MAX_ENTRIES, Entry, gathered
from bestiary_quant.calibration.importance import Importance
from bestiary_quant.calibration.reading import U64, Reader
from bestiary_quant.gguf.cursor import Buffer

_STACKED = (".experts.gate_proj", ".experts.up_proj", ".experts.down_proj")


def read(data: Buffer, origin: str, architecture: str | None = None) -> Importance:
    """Raises CheckpointError for a malformed file."""
    reader = Reader(data, origin)
    count = reader.number(U64, "the count of layers", least=1)
    if count > min(MAX_ENTRIES, reader.left // 21):  # a key of one byte and one number
        raise reader.error(f"{count} layers are announced; {MAX_ENTRIES} are allowed, if they fit the file")
    entries = []
    for _ in range(count):
        key = reader.text(U64, "the key of a layer")
        numbers = reader.number(U64, f"the numbers of {key!r}", least=1)
        name = key if key.endswith((*_STACKED, ".weight")) else f"{key}.weight"
        entries.append(Entry(name, reader.floats(numbers, f"the layer {key!r}"), torch.ones(1, dtype=torch.int64)))
    if reader.left:
        raise reader.error(f"{reader.left} bytes follow the end")
    return gathered(entries, origin, architecture)


def write(file: BinaryIO, importance: Importance, architecture: str | None = None) -> None:
    """With means as of one call; zeros for experts that no row came to."""
    file.write(U64.pack(len(importance.values)))
    for name in sorted(importance.values):
        means = importance.mean(name).float().flatten()
        counts = importance.counts[name]
        means[(counts == 0).repeat_interleave(means.numel() // len(counts))] = 0.0
        key = name.removesuffix(".weight").encode()
        file.write(U64.pack(len(key)) + key + U64.pack(means.numel()) + means.numpy().astype("<f4").tobytes())
