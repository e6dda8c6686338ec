"""What decoding and prefill say in common of a paged cache, and the reference of both."""

from __future__ import annotations

import torch


def head_counts(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[int, int]:
    """Key heads and the width of a value's head.  Raises ValueError for a cache that does not fit q [..., H, D]."""
    heads, width = q.shape[-2:]
    kv_heads, rest = divmod(keys.shape[1], width)
    if rest or not kv_heads or heads % kv_heads or values.shape[1] % kv_heads:
        raise ValueError(
            f"A cache with rows of {keys.shape[1]} and {values.shape[1]} numbers does not fit {heads} heads of {width}."
        )
    if keys.stride(1) != 1 or values.stride(1) != 1:
        raise ValueError("The rows of the cache must be contiguous.")
    return kv_heads, values.shape[1] // kv_heads


def attend_reference(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    length: int,
    size: int,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """The last C positions of one sequence: q [C, H, D], table [blocks] -> [C, H, DV]."""
    kv_heads, value_width = head_counts(q, keys, values)
    count, heads, width = q.shape
    if not length:
        return q.new_zeros((count, heads, value_width))
    at = torch.arange(length, device=q.device)
    query = torch.arange(length - count, length, device=q.device)[:, None]
    seen = at <= query if window is None else (at <= query) & (at > query - window)
    first = int(seen.any(0).int().argmax())  # blocks behind the window may be gone
    at, seen = at[first:], seen[:, first:]
    slots = table[at // size].long() * size + at % size
    k = keys[slots].float().view(-1, kv_heads, width).repeat_interleave(heads // kv_heads, 1)
    v = values[slots].float().view(-1, kv_heads, value_width).repeat_interleave(heads // kv_heads, 1)
    scores = torch.einsum("chd,shd->hcs", q.float(), k) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        scores = torch.cat((scores, sinks.float()[:, None, None].expand(-1, count, 1)), -1)
    weights = scores.softmax(-1)[..., : len(at)]
    return torch.einsum("hcs,shd->chd", weights, v).to(q.dtype)
