"""Which rows each expert has, found on the device: nothing waits for the router, so that a CUDA graph can record it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bestiary_kernels.triton.experts import Activation, experts

if TYPE_CHECKING:
    from bestiary_kernels.triton.weight import Weight


def routed(
    x: torch.Tensor,
    weights: torch.Tensor,
    indices: torch.Tensor,
    stacks: tuple[Weight, Weight, Weight],
    act: Activation,
) -> torch.Tensor:
    """The weighed sum of what the chosen experts make of each token: x [T, D], weights and indices [T, K] -> [T, D].

    The stacks are gate and up [E, I, D] and down [E, D, I].
    """
    chosen, order = indices.flatten().sort(stable=True)
    # Not by bincount, which asks the device for the greatest.
    offsets = torch.searchsorted(chosen, torch.arange(stacks[0].shape[0] + 1, dtype=chosen.dtype, device=x.device))
    made = experts(x[order // indices.shape[1]], offsets, *stacks, act)
    made = made * weights.flatten()[order, None].to(x.dtype)
    # Back to [T, K, D] and summed in the order of the choice, so that a token's sum does not depend on its batch.
    return torch.empty_like(made).index_copy_(0, order, made).view(*indices.shape, x.shape[1]).sum(1)
