"""Attention over memories of keys and values by slots."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bestiary_kernels.cpu.cache import Memory
from bestiary_kernels.cpu.library import Library, packer
from bestiary_kernels.cpu.panels import NUMBERS

ATTENTION = 11

_pack = packer("23q2d7q")

# As attention_area.h has them; a tile has as many rows as vectors have lanes, and 16 at most.
_LINE, _PART, _TILE, _BLOCK, _STRIP = 16, 64, 16, 128, 96


@dataclass(frozen=True)
class Heads:
    """What a layer's attention is."""

    kv_heads: int
    scale: float
    window: int | None = None
    """Positions that a query sees, its own among them; None: all of the past."""
    softcap: float | None = None
    """Scores become softcap * tanh(scores / softcap)."""
    sinks: torch.Tensor | None = None
    """[H]: scores that take probability and give nothing."""


@dataclass(frozen=True)
class View:
    """Which slots the sequences of a call see.  The library reads it when it runs."""

    seen: torch.Tensor
    """[N, S] int64: those that the last new token of each sequence sees, by position; behind them anything."""
    lengths: torch.Tensor
    """[N] int64: how many of them are real; of none the result is zeros."""
    count: int = 1
    """New tokens of each sequence."""
    rows: torch.Tensor | None = None
    """[N] int64: the first row of each sequence in q; None: one after another."""


def attend(
    library: Library, q: torch.Tensor, keys: Memory, values: Memory, heads: Heads, view: View, threads: int
) -> torch.Tensor:
    """From q [T, H, D] to what each sequence sees: [T, H, D].

    Query j of a sequence's `count` sees the first length - count + j + 1 positions, and of them the window.  Rows of q
    that belong to no sequence are left as they are made, which may be anything.
    """
    y = q.new_empty(q.shape)
    arguments, kept = attention_arguments(q, keys, values, heads, view, y, threads)
    library.call(ATTENTION, arguments, threads)
    del kept
    return y


def attention_arguments(
    q: torch.Tensor, keys: Memory, values: Memory, heads: Heads, view: View, y: torch.Tensor, areas: int
) -> tuple[bytes, list[torch.Tensor]]:
    """What the library is given, and what it has the addresses of, scratch memory for `areas` threads at the end."""
    _, count, dim = q.shape
    assert q.stride(2) == 1 and y.is_contiguous() and y.dtype == q.dtype and count % heads.kv_heads == 0
    assert view.seen.dtype == view.lengths.dtype == torch.int64 and view.seen.stride(1) == 1
    assert view.lengths.is_contiguous() and keys.form == values.form
    room = area(count, dim, view.count)
    scratch = torch.empty(areas * (_LINE + room) + _parts(view, count, dim), dtype=torch.float32)
    sinks, rows = heads.sinks, view.rows
    arguments = _pack(
        q.data_ptr(),
        NUMBERS[q.dtype],
        q.stride(0),
        q.stride(1),
        count,
        heads.kv_heads,
        dim,
        keys.form,
        *keys.told,
        *values.told,
        0 if rows is None else rows.data_ptr(),
        view.seen.data_ptr(),
        view.lengths.data_ptr(),
        len(view.seen),
        view.seen.stride(0),
        view.count,
        heads.window or 0,
        heads.scale,
        heads.softcap or 0.0,
        0 if sinks is None else sinks.data_ptr(),
        0 if sinks is None else NUMBERS[sinks.dtype],
        y.data_ptr(),
        y.stride(0),
        scratch.data_ptr(),
        areas,
        room,
    )
    kept = [q, *keys.tensors, *values.tensors, view.seen, view.lengths, y]
    kept += [x for x in (sinks, rows) if x is not None]
    return arguments, [*kept, scratch]


def area(heads: int, dim: int, count: int) -> int:
    """Numbers that one thread has room for."""
    wide = -(-dim // _LINE) * _LINE
    if count == 1:
        return heads * (2 * wide + _PART + _LINE) + _TILE * wide
    return _BLOCK * (2 * wide + _STRIP + 3) + _STRIP * (wide + _LINE)


def _parts(view: View, heads: int, dim: int) -> int:
    """Numbers of the results of parts of sequences."""
    if view.count > 1:
        return 0
    return len(view.seen) * heads * -(-view.seen.stride(0) // _PART) * (dim + 2)
