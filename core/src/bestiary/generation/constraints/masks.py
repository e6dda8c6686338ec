"""Masks of tokens, and logits under them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bestiary.errors import GenerationError

if TYPE_CHECKING:
    import torch

    from bestiary.generation.constraints.state import ConstraintState

Mask = np.ndarray[Any, np.dtype[np.int32]]
"""32 tokens a word, token i in bit i % 32 of word i // 32: 1 where it may come."""


def unpacked(mask: Mask, rows: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Words [..., W] as booleans [..., rows]."""
    octets = mask.astype("<i4", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=rows, bitorder="little").view(np.bool_)


def packed(allowed: np.ndarray[Any, np.dtype[np.bool_]]) -> Mask:
    """Booleans [V] as words [ceil(V / 32)]."""
    octets = np.packbits(allowed, bitorder="little")
    words = np.zeros(-(-len(allowed) // 32) * 4, np.uint8)
    words[: len(octets)] = octets
    return words.view("<i4").astype(np.int32, copy=False)


def apply_masks(logits: torch.Tensor, states: Sequence[ConstraintState | None]) -> torch.Tensor:
    """Logits [N, V] with -inf for every token that may not come; a row without a state stays as it is.

    GenerationError where a row has no token left: grammar and other filters exclude each other.
    """
    import torch

    rows = [place for place, state in enumerate(states) if state is not None]
    if not rows:
        return logits
    words = np.stack([state.mask() for state in states if state is not None])
    if logits.device.type == "cpu":
        allowed = torch.from_numpy(unpacked(words, logits.shape[-1]))
    else:  # the words are an eighth of the booleans to send
        bits = torch.arange(32, dtype=torch.int32, device=logits.device)
        sent = torch.from_numpy(words).to(logits.device)
        allowed = ((sent[:, :, None] >> bits) & 1).bool().flatten(1)[:, : logits.shape[-1]]
    whole = len(rows) == len(states)
    chosen = logits if whole else logits[rows]
    masked = torch.where(allowed, chosen, -torch.inf)
    if bool(masked.amax(-1).isneginf().any()):
        raise GenerationError("No token is left: the grammar and other filters exclude each other.")
    if whole:
        return masked
    result = logits.clone()
    result[rows] = masked
    return result
