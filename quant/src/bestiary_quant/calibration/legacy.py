"""The older files of llama.cpp (`.imatrix`, `.dat`).

    int32 count, then for each weight: int32 length, name, int32 calls, int32 numbers, float32 mean * calls for each
    int32 calls of the last chunk, int32 length, name of the text    (both absent in the oldest files)

As in `save_imatrix_legacy` and `load_imatrix_legacy` of tools/imatrix/imatrix.cpp
(https://github.com/ggml-org/llama.cpp).  Calls are chunks.  The numbers of all experts of a stack follow each other,
and nothing says how many experts there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import torch

from bestiary_quant.calibration.entries import CHUNK, MAX_ENTRIES, Entry, gathered, stored_names
from bestiary_quant.calibration.importance import Importance
from bestiary_quant.calibration.reading import I32, Reader
from bestiary_quant.gguf.cursor import Buffer


def read(data: Buffer, origin: str, architecture: str | None = None) -> Importance:
    """Raises CheckpointError for a malformed file."""
    reader = Reader(data, origin)
    count = reader.number(I32, "the count of weights", least=1)
    if count > min(MAX_ENTRIES, reader.left // 17):  # a name of one byte and one number
        raise reader.error(f"{count} weights are announced; {MAX_ENTRIES} are allowed, if they fit the file")
    entries = list(_entries(reader, count))
    calls, datasets = 0, []
    if reader.left:
        calls = reader.number(I32, "the number of calls", least=-1)
        if reader.left:
            datasets.append(reader.text(I32, "the name of the text", most=1 << 16, least=0))
    if reader.left:
        raise reader.error(f"{reader.left} bytes follow the end")
    return gathered(entries, origin, architecture, chunks=max(calls, 0), datasets=[name for name in datasets if name])


def _entries(reader: Reader, count: int) -> Iterator[Entry]:
    for _ in range(count):
        name = reader.text(I32, "the name of a weight")
        calls = reader.number(I32, f"the calls of {name!r}")
        numbers = reader.number(I32, f"the numbers of {name!r}", least=1)
        # The sums of a text in chunks of the usual length; files of no calls hold the means themselves.
        sums = reader.floats(numbers, f"the weight {name!r}") * CHUNK
        yield Entry(name, sums, torch.tensor([max(calls, 1) * CHUNK]))


def write(file: BinaryIO, importance: Importance, architecture: str | None = None) -> None:
    """Weights that no row came to are left out; experts that none came to get ones, as llama.cpp writes them."""
    names = {
        tensor: name
        for tensor, name in stored_names(importance, architecture).items()
        if bool(importance.counts[name].any())
    }
    file.write(I32.pack(len(names)))
    for tensor, name in names.items():
        calls = max(1, -(-int(importance.counts[name].max()) // importance.chunk_size))
        means = importance.mean(name).float().flatten() * calls
        dead = (importance.counts[name] == 0).repeat_interleave(means.numel() // len(importance.counts[name]))
        means[dead] = float(calls)
        encoded = tensor.encode()
        file.write(I32.pack(len(encoded)) + encoded + I32.pack(calls) + I32.pack(means.numel()))
        file.write(means.numpy().astype("<f4").tobytes())
    text = (importance.datasets[-1] if importance.datasets else "").encode()
    file.write(I32.pack(importance.chunks) + I32.pack(len(text)) + text)
