"""Taking blocks apart: what the decoders of all types have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def words(part: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bytes [..., W] as little-endian numbers of `dtype` [..., W / size]."""
    # Fields of a block are rarely aligned to their type: only memory of their own can be viewed as wider numbers.
    return part.clone(memory_format=torch.contiguous_format).view(dtype)


def half(part: torch.Tensor) -> torch.Tensor:
    """Bytes of 16-bit floats as float32."""
    return words(part, torch.float16).float()


def spread(part: torch.Tensor, shifts: Sequence[int], mask: int, run: int) -> torch.Tensor:
    """The bit fields of bytes [N, G * run] -> [N, G, len(shifts), run]: all first fields of a run, then all second.

    `shifts` are the places of the fields within a byte, and `mask` has the bits of one.
    """
    places = torch.tensor(tuple(shifts), dtype=torch.uint8, device=part.device)[:, None]
    return (part.reshape(len(part), -1, 1, run) >> places) & mask


def bits(part: torch.Tensor) -> torch.Tensor:
    """Bytes [N, W] -> their bits [N, 8 * W], the lowest of each byte first."""
    return spread(part, range(8), 1, 1).flatten(1)


def nibbles(part: torch.Tensor, run: int) -> torch.Tensor:
    """Bytes [N, W] -> 4-bit numbers [N, 2 * W]: of each run of bytes first all low halves, then all high ones."""
    return spread(part, (0, 4), 15, run).flatten(1)
