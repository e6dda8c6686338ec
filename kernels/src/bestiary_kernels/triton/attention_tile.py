# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Attention of a tile of queries to a stretch of one sequence's keys: what decoding and prefill share.

The cache is paged: the keys of all tokens lie in one tensor [slots, KH * D], the values in another [slots, KH * DV],
and position p of a sequence is in slot `table[p // SIZE] * SIZE + p % SIZE`.  The softmax is taken as the keys come
(Dao 2023, FlashAttention-2): with the largest score so far, the sum of the exponentials, and the sum of values so
weighted.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bestiary_kernels.triton.dot import dot
from bestiary_kernels.triton.functions import tanh


@triton.jit
def attend_tile(
    q,
    position,
    table,
    keys,
    values,
    head,
    begin,
    end,
    key_stride,
    value_stride,
    scale,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    SIZE: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    BM: tl.constexpr,
    BD: tl.constexpr,
    BV: tl.constexpr,
    BS: tl.constexpr,
):
    """Queries [BM, BD] at positions [BM] -> the largest score [BM], the sum [BM] and the weighted values [BM, BV].

    They see the keys of head `head` from `begin` to `end`, none after their own position, and of those the last WINDOW;
    0 is all.  Scores are bounded by SOFTCAP; 0.0 is not.  Nothing outside of `begin` to `end` is read.
    """
    d, dv = tl.arange(0, BD), tl.arange(0, BV)
    top = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    sums = tl.zeros((BM, BV), tl.float32)
    for start in range(begin, end, BS):
        at = start + tl.arange(0, BS)
        there = at < end
        slot = tl.load(table + at // SIZE, mask=there, other=0).to(tl.int64) * SIZE + at % SIZE
        held = there[None, :] & (d < D)[:, None]
        k = tl.load(keys + slot[None, :] * key_stride + head * D + d[:, None], mask=held, other=0)  # [BD, BS]
        scores = dot(q, k.to(q.dtype), tl.zeros((BM, BS), tl.float32)) * scale
        if SOFTCAP > 0:
            scores = SOFTCAP * tanh(scores / SOFTCAP)
        seen = there[None, :] & (at[None, :] <= position[:, None])
        if WINDOW > 0:
            seen = seen & (at[None, :] > position[:, None] - WINDOW)
        scores = tl.where(seen, scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        # A query that has seen nothing yet has no largest score to subtract.
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weights, shrunk = tl.exp(scores - base[:, None]), tl.exp(top - base)
        held = there[:, None] & (dv < DV)[None, :]
        v = tl.load(values + slot[:, None] * value_stride + head * DV + dv[None, :], mask=held, other=0)  # [BS, BV]
        sums = dot(weights.to(q.dtype), v.to(q.dtype), sums * shrunk[:, None])
        total = total * shrunk + tl.sum(weights, 1)
        top = higher
    return top, total, sums
