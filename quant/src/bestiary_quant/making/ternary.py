"""Making the ternary types, whose layouts are in `bestiary_quant.blocks.ternary`, as ggml-quants.c does.

They are for models trained with numbers -1, 0 and 1: other weights lose most of what they know.
"""

from __future__ import annotations

import torch

from bestiary_quant.making.columns import columns, divided, rows
from bestiary_quant.making.fields import PAIRS, half, joined


def tq1_0(x: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    d, q = _digits(x)
    parts = (_fractions(q[:, :160], 5, 32), _fractions(q[:, 160:240], 5, 16), _fractions(q[:, 240:], 4, 4), half(d))
    return torch.cat(parts, 1)


def tq2_0(x: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    d, q = _digits(x)
    return torch.cat((joined(q, PAIRS, 32), half(d)), 1)


def _digits(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest size d [N] of each block, and digits [N, 256]: 0, 1 and 2 for -d, 0 and d."""
    blocks = columns(x, 256, 256)
    d = blocks.abs().amax((0, 1))
    scaled = blocks * divided(1.0, d)
    return d, rows((scaled.abs() >= 0.5).float().copysign_(scaled) + 1)


def _fractions(digits: torch.Tensor, count: int, run: int) -> torch.Tensor:
    """Digits [N, count * run], all first ones before all second ones -> bytes [N, run], fractions in base 3.

    Rounded up, so that the digits come out again.
    """
    weights = torch.tensor([3 ** (4 - place) for place in range(count)], dtype=torch.int32, device=digits.device)
    whole = (digits.int().view(-1, count, run) * weights[:, None]).sum(1)
    return ((whole * 256 + 242) // 243).to(torch.uint8)
