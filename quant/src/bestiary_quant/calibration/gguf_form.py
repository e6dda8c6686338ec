"""Importance as a GGUF file, the newer form of llama.cpp.

    general.type "imatrix"    imatrix.datasets [string]    imatrix.chunk_count, imatrix.chunk_size uint32
    NAME.in_sum2 F32 [matrices, in]     sums of squares
    NAME.counts  F32 [matrices, 1]      rows of each; one for all matrices where a weight is used whole
    NAME.in_sum  F32                    sums, which newer files also have; not used here

As in `save_imatrix` and `load_imatrix` of tools/imatrix/imatrix.cpp (https://github.com/ggml-org/llama.cpp).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy
import torch

from bestiary.errors import CheckpointError, shown
from bestiary_quant.calibration.entries import AGAIN, CHUNK, MAX_ENTRIES, gathered, stored_names
from bestiary_quant.calibration.entries import Entry as Weight
from bestiary_quant.calibration.importance import Importance
from bestiary_quant.gguf.cursor import Buffer
from bestiary_quant.gguf.header import ALIGNMENT, Entry, Header, parse

SUMS, COUNTS, FIRST = ".in_sum2", ".counts", ".in_sum"
MAX_DATASETS = 4096
_STRING, _ARRAY, _U32 = 8, 9, 4
MOST_ROWS = 1 << 53
"""Beyond it not even float64 counts."""


def read(data: Buffer, origin: str, architecture: str | None = None) -> Importance:
    """Raises CheckpointError for a malformed file, and for a GGUF file of something else."""
    header = parse(data, len(data), origin, 3 * MAX_ENTRIES)
    metadata = header.metadata
    if metadata.text("general.type") not in (None, "imatrix") or not any(n.endswith(SUMS) for n in header.tensors):
        raise CheckpointError(
            "This GGUF file is no importance matrix.", where=origin, fix="name the file that llama-imatrix wrote"
        )
    chunks, size = metadata.whole("imatrix.chunk_count"), metadata.whole("imatrix.chunk_size")
    return gathered(
        _weights(data, header),
        origin,
        architecture or metadata.architecture,
        chunks=max(chunks or 0, 0),
        chunk_size=size if size and 0 < size < 1 << 31 else CHUNK,
        datasets=_datasets(header),
    )


def _datasets(header: Header) -> tuple[str, ...]:
    count = header.metadata.count("imatrix.datasets")
    if count is None or count > MAX_DATASETS:
        return ()
    values = header.metadata["imatrix.datasets"]
    return tuple(values) if isinstance(values, list) else ()


def _weights(data: Buffer, header: Header) -> Iterator[Weight]:
    for name, entry in header.tensors.items():
        if name.endswith(COUNTS) and name.removesuffix(COUNTS) + SUMS not in header.tensors:
            raise _malformed(header, f"{shown(name)} has no sums")
        if not name.endswith(SUMS):
            continue
        base = name.removesuffix(SUMS)
        counted = header.tensors.get(base + COUNTS)
        if counted is None:
            raise _malformed(header, f"{shown(name)} has no counts")
        if not base:
            raise _malformed(header, "a weight has no name")
        sums, counts = _numbers(data, header, name, entry), _numbers(data, header, base + COUNTS, counted).flatten()
        if sums.numel() % len(counts):
            raise _malformed(header, f"{shown(name)} has {sums.numel()} numbers for {len(counts)} counts")
        if not bool(((counts >= 0) & (counts < MOST_ROWS)).all()):
            raise _malformed(header, f"{shown(base + COUNTS)} has counts that are negative or beyond all bounds")
        shape = sums.shape[-1:] if sums.numel() == sums.shape[-1] else (-1, sums.shape[-1])
        yield Weight(base, sums.reshape(shape), counts.round().long())


def _numbers(data: Buffer, header: Header, name: str, entry: Entry) -> torch.Tensor:
    if entry.kind.name != "F32" or not entry.shape:
        raise _malformed(header, f"{shown(name)} is {entry.kind.name} {list(entry.shape)}, and rows of F32 are due")
    count = (entry.end - entry.start) // 4
    numbers = numpy.frombuffer(data, "<f4", count, entry.start).astype(numpy.float32, copy=True)
    return torch.from_numpy(numbers).view(entry.shape)


def _malformed(header: Header, what: str) -> CheckpointError:
    return CheckpointError(f"The importance matrix is malformed: {what}.", where=header.origin, fix=AGAIN)


def write(file: BinaryIO, importance: Importance, architecture: str | None = None) -> None:
    """In the order of names, as llama.cpp writes it."""
    tensors: dict[str, torch.Tensor] = {}
    for tensor, name in stored_names(importance, architecture).items():
        counts = importance.counts[name].float()
        tensors[tensor + SUMS] = importance.values[name].float().reshape(len(counts), -1)
        tensors[tensor + COUNTS] = counts[:, None]
    pairs = (
        _pair("general.type", _STRING, _text("imatrix")),
        _pair(
            "imatrix.datasets",
            _ARRAY,
            struct.pack("<IQ", _STRING, len(importance.datasets)) + b"".join(map(_text, importance.datasets)),
        ),
        _pair("imatrix.chunk_count", _U32, struct.pack("<I", importance.chunks)),
        _pair("imatrix.chunk_size", _U32, struct.pack("<I", importance.chunk_size)),
    )
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(pairs)), *pairs]
    at = 0
    for name, values in tensors.items():
        sizes = list(values.shape[::-1])
        while len(sizes) > 1 and sizes[-1] == 1:  # ggml does not count trailing dimensions of one
            sizes.pop()
        head.append(_text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, 0, at))
        at += _padded(4 * values.numel())
    written = file.write(b"".join(head))
    file.write(bytes(_padded(written) - written))
    for values in tensors.values():
        written = file.write(values.contiguous().numpy().astype("<f4").tobytes())
        file.write(bytes(_padded(written) - written))


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value
