"""The ternary types: numbers -1, 0 and 1 with one scale d, a 16-bit float, for 256 of them.

Layouts after `block_tq1_0` and `block_tq2_0` of ggml-common.h.

    TQ1_0  240 numbers five to a byte, 16 numbers four to a byte, d
    TQ2_0  256 x 2 bits, d

A byte of TQ1_0 is a fraction of 256 in base 3: times 3, what runs over is the first digit.  Times 3, 9, 27 and 81
modulo 256 the next digits come to the front.
"""

from __future__ import annotations

import torch

from bestiary_quant.blocks.fields import half, spread


def tq1_0(blocks: torch.Tensor) -> torch.Tensor:
    runs = (_digits(blocks[:, :32], 5, 32), _digits(blocks[:, 32:48], 5, 16), _digits(blocks[:, 48:52], 4, 4))
    return torch.cat(runs, 1).float().sub_(1) * half(blocks[:, 52:54])


def tq2_0(blocks: torch.Tensor) -> torch.Tensor:
    return spread(blocks[:, :64], (0, 2, 4, 6), 3, 32).flatten(1).float().sub_(1) * half(blocks[:, 64:66])


def _digits(part: torch.Tensor, count: int, run: int) -> torch.Tensor:
    """Bytes [N, run] -> their first `count` digits [N, count * run]: all first ones, then all second ones."""
    powers = torch.tensor([3**place for place in range(count)], dtype=torch.uint8, device=part.device)
    fronts = part[:, None, :] * powers[:, None]  # modulo 256
    return ((fronts.short() * 3) >> 8).flatten(1)
