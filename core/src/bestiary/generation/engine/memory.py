"""How much memory an engine takes for its cache when nobody says."""

from collections.abc import Sequence

import torch

from bestiary.nn.batch import AttentionSpec, LayerSpec
from bestiary.placement import free_memory

USUAL = 16384
"""Tokens of all requests together; more where one context alone is longer."""
SHARE = 0.5
"""Of the memory that is free once the weights are loaded."""


def token_bytes(specs: Sequence[LayerSpec], dtype: torch.dtype) -> int:
    """What one token takes in the layers that keep every token; windows and states are bounded, and not counted."""
    whole = [spec for spec in specs if isinstance(spec, AttentionSpec) and spec.window is None]
    return sum((1 if spec.latent else 2) * spec.kv_heads * spec.head_dim * dtype.itemsize for spec in whole)


def tokens_in(
    memory: int | float, specs: Sequence[LayerSpec], context_length: int, dtype: torch.dtype, device: torch.device
) -> int:
    """The tokens that so many bytes hold, or a share (below 1) of the free memory; one context where none is kept."""
    each, free = token_bytes(specs, dtype), free_memory(device)
    if memory < 1:
        memory = memory * free if free is not None else 0
    return max(256, int(memory) // each) if each and memory else context_length


def default_tokens(specs: Sequence[LayerSpec], context_length: int, dtype: torch.dtype, device: torch.device) -> int:
    """Room for one whole context, or the usual number of tokens, as far as half of the free memory goes.

    On a CPU the pages that are never written are never resident, so a generous cache costs nothing until it is used.
    """
    wanted, each, free = max(context_length, USUAL), token_bytes(specs, dtype), free_memory(device)
    if not each or free is None:
        return wanted
    return max(256, min(wanted, int(free * SHARE) // each))
