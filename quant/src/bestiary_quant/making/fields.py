"""Putting blocks together: the opposites of `bestiary_quant.blocks.fields`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bestiary_quant.making.schemes import HALF

PAIRS = (0, 2, 4, 6)
"""The places of 2-bit fields in a byte."""


def stored(values: torch.Tensor) -> torch.Tensor:
    """What 16-bit floats keep of float32 numbers; the largest one where a number is beyond it."""
    return values.clamp(-HALF, HALF).half().float()


def half(values: torch.Tensor) -> torch.Tensor:
    """Numbers [N] -> the bytes of 16-bit floats [N, 2]."""
    return values.clamp(-HALF, HALF).half()[:, None].view(torch.uint8)


def joined(codes: torch.Tensor, shifts: Sequence[int], run: int) -> torch.Tensor:
    """Codes [N, G * len(shifts) * run] uint8 -> bytes [N, G * run]: all first fields of a run come first in `codes`.

    `shifts` are the places of the fields within a byte; what is above a field must be zero.
    """
    fields = codes.reshape(len(codes), -1, len(shifts), run)
    made = fields[:, :, 0] << shifts[0]
    for place, shift in enumerate(shifts[1:], 1):
        made = made | (fields[:, :, place] << shift)
    return made.flatten(1)


def bits(codes: torch.Tensor) -> torch.Tensor:
    """Bits [N, 8 * W] -> bytes [N, W], the lowest of each byte first."""
    return joined(codes, range(8), 1)


def nibbles(codes: torch.Tensor, run: int) -> torch.Tensor:
    """4-bit codes [N, 2 * W] -> bytes [N, W]: of each 2 * run codes the first half in the low halves of run bytes."""
    return joined(codes, (0, 4), run)
