"""How much memory an engine takes for its cache when nobody says."""

from collections.abc import Sequence

import torch

from bestiary.generation.engine.packed_memory import Form, form_of
from bestiary.nn.batch import AttentionSpec, LayerSpec

USUAL = 16384
"""Tokens of all requests together; more where one context alone is longer."""
SHARE = 0.5
"""Of the memory that is free once the weights are loaded."""


def token_bytes(specs: Sequence[LayerSpec], dtype: torch.dtype, cache_type: str = "auto") -> int:
    """What one token takes in the layers that keep every token; windows and states are bounded, and not counted."""
    whole = [spec for spec in specs if isinstance(spec, AttentionSpec) and spec.window is None]
    return sum((1 if spec.latent else 2) * _row_bytes(form_of(cache_type, spec, dtype)) for spec in whole)


def _row_bytes(form: Form) -> int:
    return sum(width * kind.itemsize for width, kind in form.columns)


def tokens_in(
    memory: int | float,
    free: int | None,
    specs: Sequence[LayerSpec],
    context_length: int,
    dtype: torch.dtype,
    cache_type: str = "auto",
) -> int:
    """The tokens that so many bytes hold, or a share (a float below 1) of what is free.

    One context where no layer keeps every token, or where nobody knows what is free.
    """
    each = token_bytes(specs, dtype, cache_type)
    if isinstance(memory, float):
        memory = 0 if free is None else int(memory * free)
    return max(256, memory // each) if each and memory else context_length


def default_tokens(
    free: int | None,
    specs: Sequence[LayerSpec],
    context_length: int,
    dtype: torch.dtype,
    cache_type: str = "auto",
) -> int:
    """Room for one whole context, or the usual number of tokens, as far as half of what is free goes.

    On a CPU the pages that are never written are never resident, so a generous cache costs nothing until it is used.
    """
    wanted, each = max(context_length, USUAL), token_bytes(specs, dtype, cache_type)
    if not each or free is None:
        return wanted
    return max(256, min(wanted, int(free * SHARE) // each))
