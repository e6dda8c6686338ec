"""The bias of attention by relative position."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class RelativePositionBias(nn.Module):
    """A learned number for each head and each bucket of distances (Raffel et al. 2019, section 2.1).

    Its table [buckets, heads] is too small to be worth packing, so it is no `Embedding`.
    """

    def __init__(self, buckets: int, heads: int, max_distance: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(buckets, heads))
        self.max_distance = max_distance

    def forward(self, length: int) -> torch.Tensor:
        """[1, H, T, T]: what is added to the score of each query (third) and key (fourth), in the table's type."""
        # There are only 2T - 1 distances: a row of the result is a window on their numbers.
        distances = torch.arange(1 - length, length, device=self.weight.device)
        buckets = bucket(distances, self.weight.shape[0], self.max_distance)
        numbers = F.embedding(buckets, self.weight).t()  # [H, 2T - 1], from the farthest key behind on
        return numbers.unfold(1, length, 1).flip(1)[None]


def bucket(distances: torch.Tensor, buckets: int, max_distance: int) -> torch.Tensor:
    """The bucket of each distance, which is the key's place less the query's.

    Half of the buckets are for keys behind, half for those ahead.  Of each half, half are for one distance each; the
    rest grow by a constant factor up to `max_distance`, from which on all share the last.
    """
    half = buckets // 2
    exact = half // 2
    size = distances.abs()
    # In float32 and in this order, so that distances at the border of two buckets fall where they did in training.
    grown = torch.log(size.clamp(min=exact).float() / exact) / math.log(max_distance / exact) * (half - exact)
    far = (exact + grown.long()).clamp(max=half - 1)
    return torch.where(size < exact, size, far) + (distances > 0) * half
