"""F8Q8: blocks of 32 numbers in 8 bits, with a scale in 8 bits as well.

The layout is that of mistral.rs (`BlockF8Q8`): d in float8 e4m3, of which 1/416 is the scale, then 32 signed bytes;
x = d / 416 q, for 416 is what the float8 crate that it uses calls the largest number.  mistral.rs divides by the scale
before it is rounded to float8, so that all numbers of a block are off by up to a sixteenth; here the scale is rounded
up, and the numbers are divided by what will be read.
"""

from __future__ import annotations

import torch

from bestiary_quant.blocks.fields import words
from bestiary_quant.making.columns import codes, columns, rows

_MAX = 416.0


def f8q8(x: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    blocks = columns(x, 32, 32)
    wanted = blocks.abs().amax((0, 1)) * (_MAX / 127)
    d = wanted.clamp(max=_MAX).to(torch.float8_e4m3fn)
    d = torch.where((d.float() < wanted) & (wanted < _MAX), d.view(torch.uint8) + 1, d.view(torch.uint8))
    q = codes(blocks, d.view(torch.float8_e4m3fn).float() / _MAX, -127, 127)
    return torch.cat((d[:, None], rows(q, torch.int8)), 1)


def decode(blocks: torch.Tensor) -> torch.Tensor:
    """Blocks [N, 33] -> numbers [N, 32] float32."""
    return blocks[:, 1:].view(torch.int8) * (words(blocks[:, :1], torch.float8_e4m3fn).float() / _MAX)
