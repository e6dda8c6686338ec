# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Attention of one new token of each sequence, split over the keys (Dao et al. 2023, Flash-Decoding)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.attention_tile import attend_tile
from bestiary_kernels.triton.launch import OPTIONS, power_of_two, tiles
from bestiary_kernels.triton.paged import attend_reference, head_counts

_PART = 256
"""Keys of one program.  The same for all lengths, so that a sequence alone gives what it gives in a batch."""


def decode_attention_reference(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    *,
    size: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    made = [
        attend_reference(row[None], keys, values, table, length, size, scale, window, softcap, sinks)
        for row, table, length in zip(q, tables, lengths.tolist(), strict=True)
    ]
    return torch.cat(made)


def decode_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    *,
    size: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """q [N, H, D] of the last position of each sequence -> [N, H, DV]; its key and value are in the cache already.

    keys [slots, KH * D] and values [slots, KH * DV]; block b of sequence n is the `size` slots from tables[n, b] * size
    on.  tables [N, blocks] int32; entries before the window and after the length are not read.  lengths [N]; where one
    is 0 the result is zeros.  sinks [H] are scores that take probability and give nothing (gpt-oss).  Values may be the
    first columns of the keys, a view of one latent (DeepSeek-V2).  Raises ValueError for shapes that disagree.
    """
    kv_heads, value_width = head_counts(q, keys, values)
    (count, heads, width), (_, blocks) = q.shape, tables.shape
    if len(tables) != count or len(lengths) != count or (sinks is not None and sinks.shape != (heads,)):
        raise ValueError(f"q {list(q.shape)} does not fit its tables {list(tables.shape)}, lengths or sinks.")
    y = q.new_empty((count, heads, value_width))
    parts = max(tiles(blocks * size, _PART), 1)
    sums = q.new_empty((count, heads, parts, value_width), dtype=torch.float32)
    tops = q.new_empty((2, count, heads, parts), dtype=torch.float32)
    if not count:
        return y
    one_part[(count, kv_heads, parts)](
        q.contiguous(),
        keys,
        values,
        tables.contiguous(),
        lengths,
        tops[0],
        tops[1],
        sums,
        keys.stride(0),
        values.stride(0),
        blocks,
        scale,
        WINDOW=window or 0,
        SOFTCAP=softcap or 0.0,
        SIZE=size,
        H=heads,
        KH=kv_heads,
        D=width,
        DV=value_width,
        PART=_PART,
        BM=max(power_of_two(heads // kv_heads), 16),
        BD=max(power_of_two(width), 16),
        BV=max(power_of_two(value_width), 16),
        BS=64 if width <= 256 else 32,
        num_warps=4 if width <= 128 else 8,
        num_stages=2,
        **OPTIONS,
    )
    all_parts[(count, heads)](
        tops[0],
        tops[1],
        sums,
        tops if sinks is None else sinks,
        lengths,
        y,
        parts,
        WINDOW=window or 0,
        SINKS=sinks is not None,
        H=heads,
        DV=value_width,
        PART=_PART,
        BP=16,
        BV=power_of_two(value_width),
        num_warps=4,
        **OPTIONS,
    )
    return y


@triton.jit
def one_part(
    q,
    keys,
    values,
    tables,
    lengths,
    tops,
    totals,
    sums,
    key_stride,
    value_stride,
    blocks,
    scale,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    SIZE: tl.constexpr,
    H: tl.constexpr,
    KH: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    PART: tl.constexpr,
    BM: tl.constexpr,
    BD: tl.constexpr,
    BV: tl.constexpr,
    BS: tl.constexpr,
):
    """A program has the queries that share a key head, of one sequence, and PART of its keys.

    tops and totals [N, H, parts] and sums [N, H, parts, DV] are left alone where a part has no keys.
    """
    sequence, head, part = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + sequence).to(tl.int32)
    begin, end = part * PART, tl.minimum(part * PART + PART, length)
    if WINDOW > 0:
        begin = tl.maximum(begin, length - WINDOW)
    if begin < end:
        row = tl.arange(0, BM)
        real = row < H // KH
        at = sequence * H + head * (H // KH) + row  # [BM], of all heads of all sequences
        d, dv = tl.arange(0, BD), tl.arange(0, BV)
        tile = tl.load(q + at[:, None] * D + d[None, :], mask=real[:, None] & (d < D)[None, :], other=0)
        position = tl.zeros((BM,), tl.int32) + (length - 1)
        top, total, weighted = attend_tile(
            tile,
            position,
            tables + sequence * blocks,
            keys,
            values,
            head,
            begin,
            end,
            key_stride,
            value_stride,
            scale,
            WINDOW,
            SOFTCAP,
            SIZE,
            D,
            DV,
            BM,
            BD,
            BV,
            BS,
        )
        at = at * tl.num_programs(2) + part
        tl.store(tops + at, top, mask=real)
        tl.store(totals + at, total, mask=real)
        tl.store(sums + at[:, None] * DV + dv[None, :], weighted, mask=real[:, None] & (dv < DV)[None, :])


@triton.jit
def all_parts(
    tops,
    totals,
    sums,
    sinks,
    lengths,
    y,
    parts,
    WINDOW: tl.constexpr,
    SINKS: tl.constexpr,
    H: tl.constexpr,
    DV: tl.constexpr,
    PART: tl.constexpr,
    BP: tl.constexpr,
    BV: tl.constexpr,
):
    """A program brings the parts of one head of one sequence together, BP at a time: y [N, H, DV]."""
    sequence, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.load(lengths + sequence).to(tl.int32)
    first, end = 0, tl.cdiv(length, PART)
    if WINDOW > 0:
        first = tl.maximum(length - WINDOW, 0) // PART
    base = (sequence * H + head) * parts
    dv = tl.arange(0, BV)
    top = tl.full((1,), float("-inf"), tl.float32)
    total = tl.zeros((1,), tl.float32)
    if SINKS:
        top = tl.zeros((1,), tl.float32) + tl.load(sinks + head).to(tl.float32)
        total = tl.full((1,), 1.0, tl.float32)
    mean = tl.zeros((BV,), tl.float32)
    for start in range(first, end, BP):
        part = start + tl.arange(0, BP)
        there = part < end
        tile = tl.load(tops + base + part, mask=there, other=float("-inf"))
        higher = tl.maximum(top, tl.max(tile, 0))
        weight, shrunk = tl.exp(tile - higher), tl.exp(top - higher)
        total = total * shrunk + tl.sum(weight * tl.load(totals + base + part, mask=there, other=0), 0)
        at = (base + part)[:, None] * DV + dv[None, :]
        weighted = tl.load(sums + at, mask=there[:, None] & (dv < DV)[None, :], other=0)
        mean = mean * shrunk + tl.sum(weighted * weight[:, None], 0)
        top = higher
    mean = mean / tl.where(total > 0, total, 1.0)
    tl.store(y + (sequence * H + head) * DV + dv, mean.to(y.dtype.element_ty), mask=dv < DV)
