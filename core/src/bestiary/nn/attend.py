"""Attention of one sequence in plain torch: the reference that every back end must equal."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from bestiary.nn.batch import AttentionSpec


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None,
    spec: AttentionSpec,
    sinks: torch.Tensor | None = None,
    runs: Sequence[tuple[int, int]] = (),
) -> torch.Tensor:
    """q [H, T, D], k and v [KH, S, D] of one sequence -> [H, T, D]; of a latent v is None.

    The queries are the last T of the S positions; each sees itself, the past, and all of a run [first, end) of
    positions in which it stands, as far as the window reaches back.
    """
    if v is None:
        v = k[..., : spec.latent]
    new, seen = q.shape[1], k.shape[1]
    if spec.window is not None and seen - new + 1 > spec.window:
        # The oldest query sees no further back than this.
        first = seen - new - spec.window + 1
        k, v, seen = k[:, first:], v[:, first:], seen - first
        runs = [(start - first, end - first) for start, end in runs]
    windowed = spec.window is not None and seen > spec.window
    mask = None
    if new > 1 and (new < seen or windowed or spec.softcap or sinks is not None or runs):
        mask = _mask(new, seen, spec.window, q.device, runs)
    if spec.softcap is None and sinks is None:
        y = F.scaled_dot_product_attention(
            q[None], k[None], v[None], mask, is_causal=mask is None and new > 1, scale=spec.scale, enable_gqa=True
        )
        return y[0]
    return _attend_by_hand(q, k, v, spec, mask, sinks)


def _mask(
    new: int, seen: int, window: int | None, device: torch.device, runs: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """[T, S] of bool: True where the query may look."""
    before = seen - new
    distance = torch.arange(before, seen, device=device)[:, None] - torch.arange(seen, device=device)
    mask = distance >= 0
    for first, end in runs:
        mask[max(0, first - before) : max(0, end - before), max(0, first) : max(0, end)] = True
    return mask if window is None else mask & (distance < window)


def _attend_by_hand(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    spec: AttentionSpec,
    mask: torch.Tensor | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    heads, new, dim = q.shape
    grouped = q.reshape(spec.kv_heads, -1, dim)  # [KH, G * T, D]: a key head's queries share one product
    scores = (grouped @ k.transpose(1, 2)).view(heads, new, -1) * spec.scale
    if spec.softcap is not None:
        scores = torch.tanh(scores / spec.softcap) * spec.softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is not None:
        scores = torch.cat((scores, sinks.to(scores.dtype)[:, None, None].expand(-1, new, 1)), -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
    if sinks is not None:
        weights = weights[..., :-1]
    return (weights.reshape(spec.kv_heads, -1, k.shape[1]) @ v).view(heads, new, v.shape[-1])
