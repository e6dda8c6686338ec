"""The vision transformer (Dosovitskiy et al. 2020) that the towers of CLIP and SigLIP share.

A picture is cut into square patches, each patch is one token, and every token sees all of its picture.  Parameter names
are those of Hugging Face's CLIPVisionModel.  For inference: blocks work in place on what they made themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.errors import ConfigError, MediaError, shown
from bestiary.nn.activation import activation
from bestiary.nn.linear import Linear, together
from bestiary.nn.norm import LayerNorm
from bestiary.nn.operations import PLAIN

_LARGEST = 1 << 16
_ROWS = 1024
"""That pass a feed-forward block at once on a CPU: what is between its products is small enough that its memory is used
again, where that of a whole large picture is taken from the system, and cleared by it, in each layer."""


def check_sizes(config: Mapping[str, Any], origin: object = None) -> None:
    """Raises ConfigError where `patch_size`, `num_channels` or `image_size` of a configuration cannot be."""
    least = 1
    for key in ("num_channels", "patch_size", "image_size"):
        value = config.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
            due = f"a whole number from {least} to {_LARGEST}"
            raise ConfigError(f'"{key}" is {shown(value)}; {due} is due.', where=origin)
        # A picture has at least one patch.
        least = value if key == "patch_size" else 1


class PatchEmbedding(nn.Module):
    """Pictures as tokens: each patch times a matrix.

    The parameter is that of a convolution whose stride is its kernel [D, C, S, S].
    """

    ops = PLAIN

    def __init__(self, dim: int, patch_size: int, channels: int = 3, bias: bool = True) -> None:
        super().__init__()
        self.size, self.channels = patch_size, channels
        self.weight = nn.Parameter(torch.empty(dim, channels, patch_size, patch_size))
        self.bias = nn.Parameter(torch.empty(dim)) if bias else None

    def forward(self, pixel_values: torch.Tensor, image_size: int | None = None) -> torch.Tensor:
        """pixel_values [N, C, H, W] -> [N, P, D], row by row; a rest at the right or below is left out.

        Raises MediaError for other channels, for pictures smaller than a patch, and for H or W other than `image_size`.
        """
        rows, columns = self.grid(pixel_values, image_size)
        size, pixels = self.size, pixel_values.to(self.weight.dtype)
        if pixels.shape[2:] != (rows * size, columns * size):
            pixels = pixels[:, :, : rows * size, : columns * size]
        patches = pixels.view(-1, self.channels, rows, size, columns, size).permute(0, 2, 4, 1, 3, 5)
        flat = patches.reshape(-1, self.channels * size * size)
        (made,) = self.ops.linear(flat, [self.weight.flatten(1)], [self.bias])
        return made.view(len(pixels), rows * columns, -1)

    def grid(self, pixel_values: torch.Tensor, image_size: int | None = None) -> tuple[int, int]:
        """Rows and columns of patches.  Raises as `forward` does."""
        shape = tuple(pixel_values.shape)
        wanted = "H" if image_size is None else image_size, "W" if image_size is None else image_size
        due = f"[N, {self.channels}, {wanted[0]}, {wanted[1]}]"
        if len(shape) != 4 or shape[1] != self.channels:
            raise MediaError(f"Pictures of the shape {list(shape)} came; {due} is due.")
        if image_size is not None and shape[2:] != (image_size, image_size):
            raise MediaError(f"Pictures of {shape[2]} x {shape[3]} pixels came; {due} is due.")
        if min(shape[2:]) < self.size:
            raise MediaError(f"Pictures of {shape[2]} x {shape[3]} pixels came; a patch has {self.size} x {self.size}.")
        return shape[2] // self.size, shape[3] // self.size


class VisionAttention(nn.Module):
    """Attention of all tokens of a picture to each other."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f'"hidden_size" is {dim}, which {heads} "num_attention_heads" do not divide.')
        self.head_dim = dim // heads
        self.q_proj, self.k_proj = Linear(dim, dim, True), Linear(dim, dim, True)
        self.v_proj, self.out_proj = Linear(dim, dim, True), Linear(dim, dim, True)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """x [N, P, D] -> [N, P, D]; `mask` [N, 1, 1, P] is True for the tokens to look at, None for all."""
        made = together(x, self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (y.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2) for y in made)  # [N, H, P, D / H]
        if x.device.type == "cpu":
            # Each block of queries reads all keys of a head: a copy of them side by side is read faster.
            q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        y = F.scaled_dot_product_attention(q, k, v, mask)
        return self.out_proj(y.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]


class VisionMLP(nn.Module):
    """fc2(act(fc1(x))) for x [T, D]."""

    def __init__(self, dim: int, hidden: int, act: str) -> None:
        super().__init__()
        self.fc1, self.fc2, self.act = Linear(dim, hidden, True), Linear(hidden, dim, True), activation(act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))  # type: ignore[no-any-return]


class VisionLayer(nn.Module):
    """Attention and a feed-forward block, each after a norm and added to its input."""

    def __init__(self, dim: int, hidden: int, heads: int, act: str, eps: float) -> None:
        super().__init__()
        self.layer_norm1, self.self_attn = LayerNorm(dim, eps), VisionAttention(dim, heads)
        self.layer_norm2, self.mlp = LayerNorm(dim, eps), VisionMLP(dim, hidden, act)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """x [N, P, D] -> [N, P, D]; `mask` as VisionAttention has it."""
        x = self.self_attn(self.layer_norm1(x), mask).add_(x)
        flat = x.view(-1, x.shape[-1])
        for rows in torch.split(flat, _ROWS if x.device.type == "cpu" else len(flat)):
            rows.add_(self.mlp(self.layer_norm2(rows)))
        return x


class VisionEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, layers: int, dim: int, hidden: int, heads: int, act: str, eps: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(dim, hidden, heads, act, eps) for _ in range(layers))

    def forward(self, x: torch.Tensor, layer: int = -1, mask: torch.Tensor | None = None) -> torch.Tensor:
        """x [N, P, D] -> [N, P, D], the state after layer `layer`; later ones are not computed.

        0 is x itself, 1 the state after the first layer, -1 that after the last, -2 the one before it.  `mask` [N, P]
        is True for the tokens that others may look at.  Raises ConfigError for a layer that is not there.
        """
        count = len(self.layers)
        if not -count - 1 <= layer <= count:
            raise ConfigError(f"State {layer} was asked for; the vision tower has those from {-count - 1} to {count}.")
        seen = None if mask is None else mask[:, None, None]
        for block in self.layers[: layer % (count + 1)]:
            x = block(x, seen)
        return x
