"""A large picture in tiles that overlap and are blended: the memory is that of one tile, the seams are soft.

Each tile sees itself only, so the result is near that of the whole picture and not equal to it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from bestiary.errors import OptionError, shown


def check_tile(tile: object) -> None:
    """Raises OptionError for what is no size of a tile; None is none."""
    if tile is None:
        return
    if isinstance(tile, bool) or not isinstance(tile, int) or not 4 <= tile <= 1 << 16 or tile % 4:
        raise OptionError(f"A tile of {shown(tile)} latents was asked for; a multiple of 4 is due.")


def tiled(
    change: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    tile: int,
    shape: tuple[int, ...],
    made_tile: int,
) -> torch.Tensor:
    """`change` of x [1, C, H, W], which makes squares of `made_tile` of those of `tile`: [1, *shape].

    The sizes and the blending are those of diffusers: tiles begin every three quarters of their size, and where two
    overlap the later one fades in over the last quarter of the one before, in which the fading above and at the left
    has been done.
    """
    made = x.new_empty((1, *shape), dtype=torch.float32)
    step, fade = tile - tile // 4, made_tile // 4
    kept = made_tile - fade
    above: list[torch.Tensor] = []
    for row, top in enumerate(range(0, x.shape[2], step)):
        lower: list[torch.Tensor] = []
        left = None
        for column, start in enumerate(range(0, x.shape[3], step)):
            part = change(x[:, :, top : top + tile, start : start + tile])
            if above:
                _fade(above[column], part, 2)
            if left is not None:
                _fade(left, part, 3)
            inner = part[:, :, :kept, :kept]
            y, z = row * kept, column * kept
            made[:, :, y : y + inner.shape[2], z : z + inner.shape[3]] = inner
            lower.append(part[:, :, -fade:].clone())
            left = part[:, :, :, -fade:].clone()
        above = lower
    return made


def _fade(before: torch.Tensor, part: torch.Tensor, dim: int) -> None:
    """Let the first rows or columns of `part` begin as the last ones of `before`, in place."""
    count = min(before.shape[dim], part.shape[dim])
    weights = torch.arange(count, dtype=torch.float32, device=part.device) / count
    weights = weights.view(-1, 1) if dim == 2 else weights
    begin = part.narrow(dim, 0, count)
    begin.mul_(weights).add_(before.narrow(dim, before.shape[dim] - count, count) * (1 - weights))
