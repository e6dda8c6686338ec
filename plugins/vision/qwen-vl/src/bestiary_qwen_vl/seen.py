"""Attention within sets of patches, without a mask over all of them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from bestiary_qwen_vl.grid import Sets


class Seen:
    """Sets of patches that see each other: those of one size are a batch of attention."""

    def __init__(self, sets: Sets, device: torch.device) -> None:
        # One size in the order of the patches needs no gathering.
        (first, *others) = sets.values()
        self._size = first.shape[1] if not others and np.array_equal(first.reshape(-1), np.arange(first.size)) else None
        self._sets = [torch.from_numpy(patches).to(device) for patches in sets.values()]

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q, k and v [P, H, D] -> [P, H, D]."""
        if self._size is not None:
            made = _attend(*(x.view(-1, self._size, *x.shape[1:]) for x in (q, k, v)))
            return made.flatten(0, 1)
        made = torch.empty_like(q)
        for patches in self._sets:
            made[patches] = _attend(q[patches], k[patches], v[patches])
        return made


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """[N, L, H, D], each set on its own."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
