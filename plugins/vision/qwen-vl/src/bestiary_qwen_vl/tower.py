"""The vision towers of Qwen2-VL (arXiv 2409.12191) and Qwen2.5-VL (arXiv 2502.13923).

Patches of pictures of any size stand one after another, turned by their row and column.  Qwen2-VL sees whole frames and
has the blocks of a ViT; Qwen2.5-VL sees windows in most layers, and has the blocks of its language model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bestiary.nn import GatedMLP, LayerNorm, Linear, RMSNorm, Rotation, activation
from bestiary_qwen_vl.grid import Grid, by_frame, by_window, coordinates, together
from bestiary_qwen_vl.seen import Seen
from bestiary_qwen_vl.shape import Shape

_EPS = 1e-6


class PatchEmbed(nn.Module):
    """The numbers of a patch, [P, channels * moments * pixels], as a vector [P, D]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.proj = Linear(shape.patch_numbers, shape.dim)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return self.proj(patches)  # type: ignore[no-any-return]


class VisionAttention(nn.Module):
    """Attention within sets of patches, both ways."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = Linear(dim, 3 * dim, bias=True), Linear(dim, dim, bias=True)

    def forward(self, x: torch.Tensor, rotation: Rotation, seen: Seen) -> torch.Tensor:
        """x [P, D] -> [P, D]."""
        q, k, v = self.qkv(x).view(len(x), 3, self.heads, -1).unbind(1)
        # The angles of a large picture's edge would lose too much in 16 bits.
        turned = rotation.apply(torch.cat((q, k), 1).float()).to(x.dtype)
        y = seen.attend(turned[:, : self.heads], turned[:, self.heads :], v)
        return self.proj(y.flatten(1))  # type: ignore[no-any-return]


class PlainMLP(nn.Module):
    """fc2(act(fc1(x)))."""

    def __init__(self, dim: int, hidden: int, act: str) -> None:
        super().__init__()
        self.fc1, self.fc2, self.act = Linear(dim, hidden, bias=True), Linear(hidden, dim, bias=True), activation(act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))  # type: ignore[no-any-return]


class VisionBlock(nn.Module):
    """Attention and a feed-forward block, each after a norm and added to its input."""

    def __init__(self, shape: Shape, *, modern: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(shape.dim, modern), _norm(shape.dim, modern)
        self.attn = VisionAttention(shape.dim, shape.heads)
        self.mlp: nn.Module = (
            GatedMLP(shape.dim, shape.hidden, shape.act, bias=True)
            if modern
            else PlainMLP(shape.dim, shape.hidden, shape.act)
        )

    def forward(self, x: torch.Tensor, rotation: Rotation, seen: Seen) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), rotation, seen)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class Tower(nn.Module):
    """Patches of several pictures and videos -> their vectors.  `modern` is Qwen2.5-VL's."""

    def __init__(self, shape: Shape, *, modern: bool) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = PatchEmbed(shape)
        self.blocks = nn.ModuleList([VisionBlock(shape, modern=modern) for _ in range(shape.depth)])

    def forward(self, patches: torch.Tensor, grids: Sequence[Grid]) -> torch.Tensor:
        """patches [P, numbers] of all grids in their order -> [P, D]."""
        merge, window = self.shape.merge, self.shape.window
        rotation = self._rotation(grids, patches.device)
        frames = Seen(together((grid, by_frame(grid)) for grid in grids), patches.device)
        windows = (
            frames
            if window is None
            else Seen(together((grid, by_window(grid, merge, window)) for grid in grids), patches.device)
        )
        x = self.patch_embed(patches)
        for index, block in enumerate(self.blocks):
            x = block(x, rotation, frames if index in self.shape.full else windows)
        return x  # type: ignore[no-any-return]

    def _rotation(self, grids: Sequence[Grid], device: torch.device) -> Rotation:
        """A quarter of a head's dimensions turn by the row, a quarter by the column, each with its pair."""
        places = torch.cat([torch.from_numpy(coordinates(grid, self.shape.merge)) for grid in grids], 1).to(device)
        width = self.shape.dim // self.shape.heads // 2
        exponents = torch.arange(0, width, 2, device=device).float() / width
        angles = places[..., None].float() / self.shape.theta**exponents  # [2, P, width / 2]
        angles = torch.cat((angles[0], angles[1]), -1)
        return Rotation.of(angles.cos(), angles.sin(), interleaved=False)


class PatchMerger(nn.Module):
    """merge x merge patches, neighbours in their order, become one row of the language model's width."""

    def __init__(self, shape: Shape, *, modern: bool) -> None:
        super().__init__()
        self.width = shape.dim * shape.merge**2
        self.ln_q = _norm(shape.dim, modern)
        self.mlp = nn.Sequential(
            Linear(self.width, self.width, bias=True), nn.GELU(), Linear(self.width, shape.out, bias=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[P, D] -> [rows, out]."""
        return self.mlp(self.ln_q(x).view(-1, self.width))  # type: ignore[no-any-return]


def _norm(dim: int, modern: bool) -> nn.Module:
    return RMSNorm(dim, _EPS) if modern else LayerNorm(dim, _EPS)
