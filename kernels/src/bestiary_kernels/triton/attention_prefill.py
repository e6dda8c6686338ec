# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Attention of the new tokens of sequences that lie one after another in one flat batch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.attention_tile import attend_tile
from bestiary_kernels.triton.launch import OPTIONS, power_of_two, tiles
from bestiary_kernels.triton.paged import attend_reference, head_counts


def prefill_attention_reference(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    starts: torch.Tensor,
    counts: torch.Tensor,
    lengths: torch.Tensor,
    *,
    size: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
    longest: int | None = None,
) -> torch.Tensor:
    y = q.new_empty((*q.shape[:2], head_counts(q, keys, values)[1]))
    parts = zip(tables, starts.tolist(), counts.tolist(), lengths.tolist(), strict=True)
    for table, start, count, length in parts:
        rows = slice(start, start + count)
        y[rows] = attend_reference(q[rows], keys, values, table, length, size, scale, window, softcap, sinks)
    return y


def prefill_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    starts: torch.Tensor,
    counts: torch.Tensor,
    lengths: torch.Tensor,
    *,
    size: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
    longest: int | None = None,
) -> torch.Tensor:
    """q [T, H, D] -> [T, H, DV]; the keys and values of the new tokens are in the cache already.

    Sequence n has the rows from starts[n], counts[n] of them, which are the last of its lengths[n] positions; each sees
    itself and the past.  A count may be 1, a token that is decoded, or 0.  Rows of no sequence are left as they come.
    `longest` is the largest of the counts, if the caller knows it: without, there are programs for T rows of each.
    For the rest see `decode_attention`.  Raises ValueError for shapes that disagree.
    """
    kv_heads, value_width = head_counts(q, keys, values)
    (tokens, heads, width), (count, blocks) = q.shape, tables.shape
    if not len(starts) == len(counts) == len(lengths) == count or (sinks is not None and sinks.shape != (heads,)):
        raise ValueError(f"There are {count} tables, and not as many starts, counts or lengths; or not {heads} sinks.")
    y = q.new_empty((tokens, heads, value_width))
    if not count or not tokens:
        return y
    rows = (tokens if longest is None else longest) * (heads // kv_heads)
    height = min(max(power_of_two(rows), 16), 64 if width <= 128 else 32)
    one_tile[(tiles(rows, height), kv_heads, count)](
        q.contiguous(),
        keys,
        values,
        tables.contiguous(),
        starts,
        counts,
        lengths,
        q if sinks is None else sinks,
        y,
        keys.stride(0),
        values.stride(0),
        blocks,
        scale,
        WINDOW=window or 0,
        SOFTCAP=softcap or 0.0,
        SINKS=sinks is not None,
        SIZE=size,
        H=heads,
        KH=kv_heads,
        D=width,
        DV=value_width,
        BM=height,
        BD=max(power_of_two(width), 16),
        BV=max(power_of_two(value_width), 16),
        BS=64 if width <= 128 else 32,
        num_warps=4 if width <= 64 else 8,
        num_stages=2,
        **OPTIONS,
    )
    return y


@triton.jit
def one_tile(
    q,
    keys,
    values,
    tables,
    starts,
    counts,
    lengths,
    sinks,
    y,
    key_stride,
    value_stride,
    blocks,
    scale,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    SINKS: tl.constexpr,
    SIZE: tl.constexpr,
    H: tl.constexpr,
    KH: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    BM: tl.constexpr,
    BD: tl.constexpr,
    BV: tl.constexpr,
    BS: tl.constexpr,
):
    """A program has BM rows of one sequence and key head: row r is query r // G with head r % G of the G that share it.

    So the keys are read once for all heads that see them, and a sequence with one new token fills a tile too.
    """
    G: tl.constexpr = H // KH
    head, sequence = tl.program_id(1), tl.program_id(2).to(tl.int64)
    count = tl.load(counts + sequence).to(tl.int32)
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    first, last = tl.program_id(0) * BM // G, (tl.program_id(0) * BM + BM - 1) // G
    if first < count:
        query = row // G
        real = query < count
        length = tl.load(lengths + sequence).to(tl.int32)
        start = tl.load(starts + sequence).to(tl.int64)
        before = length - count
        begin, end = 0, tl.minimum(length, before + last + 1)
        if WINDOW > 0:
            begin = tl.maximum(0, before + first - WINDOW + 1)
        which = head * G + row % G  # [BM], the query's head
        at = (start + query) * H + which
        d, dv = tl.arange(0, BD), tl.arange(0, BV)
        tile = tl.load(q + at[:, None] * D + d[None, :], mask=real[:, None] & (d < D)[None, :], other=0)
        top, total, sums = attend_tile(
            tile,
            before + query,
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
        if SINKS:
            sink = tl.load(sinks + which, mask=real, other=0).to(tl.float32)
            higher = tl.maximum(top, sink)
            shrunk = tl.exp(top - higher)
            total = total * shrunk + tl.exp(sink - higher)
            sums = sums * shrunk[:, None]
        mean = sums / tl.where(total > 0, total, 1.0)[:, None]
        held = real[:, None] & (dv < DV)[None, :]
        tl.store(y + at[:, None] * DV + dv[None, :], mean.to(y.dtype.element_ty), mask=held)
