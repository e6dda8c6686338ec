# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, disable-error-code="import-not-found"
"""Rotary position embedding (Su et al. 2021) of queries and keys, and keys and values on their way into the cache."""

import torch
import triton
import triton.language as tl

from bestiary_kernels.triton.launch import OPTIONS, power_of_two, tiles

_HEADS = 4
"""Heads of a token that one program turns."""


def rope_and_write_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    interleaved: bool = False,
) -> torch.Tensor:
    kept = slots >= 0
    keys[slots[kept]] = _turned(k, cos, sin, interleaved).flatten(1)[kept].to(keys.dtype)
    values[slots[kept]] = v.flatten(1)[kept].to(values.dtype)
    return _turned(q, cos, sin, interleaved)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool) -> torch.Tensor:
    pairs = cos.shape[1]
    wide, cos, sin = x.float(), cos.float()[:, None], sin.float()[:, None]
    turned, rest = wide[..., : 2 * pairs], wide[..., 2 * pairs :]
    a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    a, b = a * cos - b * sin, b * cos + a * sin
    turned = torch.stack((a, b), -1).flatten(-2) if interleaved else torch.cat((a, b), -1)
    return torch.cat((turned, rest), -1).to(x.dtype)


def rope_and_write(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    interleaved: bool = False,
) -> torch.Tensor:
    """Turn q [T, H, D] and k [T, KH, D], write k and v [T, KH, DV] to the cache, and return the turned q.

    cos and sin [T, R / 2] are of each pair of the first R dimensions: (i, i + R / 2), or (2 i, 2 i + 1) if interleaved;
    the other D - R stay.  keys [slots, KH * D] and values [slots, KH * DV] are the cache, and slots [T] says where each
    token goes; one below zero is of no sequence, and is not written.  Raises ValueError for shapes that disagree.
    """
    (tokens, heads, width), (_, kv_heads, value_width) = q.shape, v.shape
    pairs = cos.shape[1]
    if k.shape != (tokens, kv_heads, width) or len(v) != tokens or len(slots) != tokens:
        raise ValueError(f"q {list(q.shape)}, k {list(k.shape)} and v {list(v.shape)} are not of the same tokens.")
    if cos.shape != (tokens, pairs) or sin.shape != cos.shape or 2 * pairs > width:
        raise ValueError(f"The angles {list(cos.shape)} do not fit q {list(q.shape)}.")
    if keys.shape[1] != kv_heads * width or values.shape[1] != kv_heads * value_width:
        raise ValueError(f"The cache has rows of {keys.shape[1]} and {values.shape[1]} numbers.")
    if keys.stride(1) != 1 or values.stride(1) != 1:
        raise ValueError("The rows of the cache must be contiguous.")
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    turned = torch.empty_like(q)
    if tokens:
        one_token[(tokens, tiles(heads, _HEADS) + tiles(kv_heads, _HEADS))](
            q,
            k,
            v,
            cos.contiguous(),
            sin.contiguous(),
            turned,
            keys,
            values,
            slots,
            keys.stride(0),
            values.stride(0),
            H=heads,
            KH=kv_heads,
            D=width,
            DV=value_width,
            PAIRS=pairs,
            STEP=2 if interleaved else 1,
            APART=1 if interleaved else pairs,
            BH=_HEADS,
            BP=power_of_two(pairs),
            BR=power_of_two(width - 2 * pairs),
            BV=power_of_two(value_width),
            num_warps=2,
            **OPTIONS,
        )
    return turned


@triton.jit
def one_token(
    q,
    k,
    v,
    cos,
    sin,
    turned,
    keys,
    values,
    slots,
    key_stride,
    value_stride,
    H: tl.constexpr,
    KH: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    PAIRS: tl.constexpr,
    STEP: tl.constexpr,
    APART: tl.constexpr,
    BH: tl.constexpr,
    BP: tl.constexpr,
    BR: tl.constexpr,
    BV: tl.constexpr,
):
    """A program has BH heads of a token: of the queries, or, in the programs after those, of the keys and values."""
    token = tl.program_id(0).to(tl.int64)
    tile = tl.program_id(1)
    pair = tl.arange(0, BP)
    c = tl.load(cos + token * PAIRS + pair, mask=pair < PAIRS, other=0).to(tl.float32)[None, :]
    s = tl.load(sin + token * PAIRS + pair, mask=pair < PAIRS, other=0).to(tl.float32)[None, :]
    if tile < tl.cdiv(H, BH):
        head = tile * BH + tl.arange(0, BH)
        row = token * H * D
        _turn(q + row, turned + row, head, head < H, c, s, D, PAIRS, STEP, APART, BP, BR)
    else:
        head = (tile - tl.cdiv(H, BH)) * BH + tl.arange(0, BH)
        slot = tl.load(slots + token).to(tl.int64)
        if slot >= 0:
            _turn(k + token * KH * D, keys + slot * key_stride, head, head < KH, c, s, D, PAIRS, STEP, APART, BP, BR)
            column = tl.arange(0, BV)
            at = head[:, None] * DV + column[None, :]
            held = (head < KH)[:, None] & (column < DV)[None, :]
            value = tl.load(v + token * KH * DV + at, mask=held, other=0)
            tl.store(values + slot * value_stride + at, value.to(values.dtype.element_ty), mask=held)


@triton.jit
def _turn(
    x,
    y,
    head,
    held,
    c,
    s,
    D: tl.constexpr,
    PAIRS: tl.constexpr,
    STEP: tl.constexpr,
    APART: tl.constexpr,
    BP: tl.constexpr,
    BR: tl.constexpr,
):
    """Heads [BH] of the token at x, turned, to y.  Pair i is the numbers STEP i and STEP i + APART of a head."""
    pair = tl.arange(0, BP)
    at = head[:, None] * D + STEP * pair[None, :]
    there = held[:, None] & (pair < PAIRS)[None, :]
    a = tl.load(x + at, mask=there, other=0).to(tl.float32)
    b = tl.load(x + at + APART, mask=there, other=0).to(tl.float32)
    kind: tl.constexpr = x.dtype.element_ty  # what is written was of that type before the cache's, if that differs
    tl.store(y + at, (a * c - b * s).to(kind).to(y.dtype.element_ty), mask=there)
    tl.store(y + at + APART, (b * c + a * s).to(kind).to(y.dtype.element_ty), mask=there)
    if D > 2 * PAIRS:
        rest = 2 * PAIRS + tl.arange(0, BR)
        at = head[:, None] * D + rest[None, :]
        there = held[:, None] & (rest < D)[None, :]
        tl.store(y + at, tl.load(x + at, mask=there, other=0).to(y.dtype.element_ty), mask=there)
