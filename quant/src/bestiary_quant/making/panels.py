"""Weights quantised some rows at a time, and the type of scales that lie beside codes."""

from __future__ import annotations

from collections.abc import Callable

import torch

MAKING = 1 << 19
"""Numbers quantised at a time: their temporaries take some 20 MB; with less, threads mostly wait for each other."""


def panels(x: torch.Tensor, make: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    """What `make` makes of x [R, ...] in float32, some rows at a time and joined again: tensors [R, ...]."""
    step = max(1, MAKING // max(x[:1].numel(), 1))
    parts = [make(part.float()) for part in torch.split(x, step)]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def compact(bits: int, scales: torch.Tensor, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and offsets of codes of so many bits as 16-bit floats, or as they are where those would blur the codes.

    That is where a step is no longer much wider than what such a float drops of the largest code or of an offset: with
    eight bits, and for scales below the normal numbers.
    """
    kind = torch.finfo(torch.float16)
    widest, farthest = float(scales.abs().amax()), float(offsets.abs().amax())
    if bits > 6 or not kind.tiny <= widest <= kind.max or farthest > kind.max:
        return scales, offsets
    return scales.half(), offsets.half()
