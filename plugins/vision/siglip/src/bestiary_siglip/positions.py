"""The positions of a picture's patches in a table for square pictures: fractional coordinates (NaViT, 2307.06304)."""

from __future__ import annotations

import torch


def bucketed(mask: torch.Tensor, side: int) -> torch.Tensor:
    """Rows [N, h * w] of a table of side * side positions, for the patches that `mask` [N, h, w] has; 0 for others.

    How far a patch is along its picture, from 0 to 1, finds its place along the table, whatever the picture's size.
    The float32 arithmetic is Idefics2's, step by step, for a coordinate that is rounded otherwise falls beside its
    bucket; and on the CPU, so that it is the same everywhere.
    """
    seen = mask.cpu()
    edges = torch.arange(1 / side, 1.0, 1 / side, device="cpu")  # of the buckets, less the first and the last
    rows = _buckets(seen[:, :, 0].sum(1), seen.shape[1], edges)  # [N, h]
    columns = _buckets(seen[:, 0, :].sum(1), seen.shape[2], edges)  # [N, w]
    places = rows[:, :, None] * side + columns[:, None, :]
    return places.masked_fill(~seen, 0).flatten(1).to(mask.device)


def _buckets(counts: torch.Tensor, length: int, edges: torch.Tensor) -> torch.Tensor:
    """counts [N] of patches along one side -> the bucket of each of `length` patches, [N, length]."""
    fractions = torch.arange(length, dtype=torch.float32, device="cpu") * (1.0 / counts)[:, None]
    return torch.bucketize(fractions.clamp(max=1.0 - 1e-6), edges, right=True)
