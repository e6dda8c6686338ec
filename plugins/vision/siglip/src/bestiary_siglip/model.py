"""The vision tower of SigLIP (Zhai et al. 2023), with the names of transformers' SiglipVisionModel.

Idefics3 and SmolVLM have the same tower, and show it pictures of any size below the one that it was trained on.  The
pooling head, which makes one vector of a picture, is not here: models that see read the tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bestiary.config import Config, normalise
from bestiary.errors import MediaError
from bestiary.nn import Embedding, LayerNorm
from bestiary.nn.vision import PatchEmbedding, VisionEncoder, check_sizes
from bestiary_siglip.positions import bucketed

# What SiglipVisionConfig takes for granted, and configurations therefore leave out.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
# The same of Idefics3VisionConfig and SmolVLMVisionConfig.
IDEFICS: dict[str, Any] = {**DEFAULTS, "hidden_size": 1152, "num_attention_heads": 16, "patch_size": 32}


def build(config: Config, *, any_size: bool = False) -> SiglipVision:
    """The tower of a `vision_config`; `any_size`: one of Idefics3 or SmolVLM.  Raises ConfigError for one that cannot
    be."""
    c = normalise(config, config.origin, IDEFICS if any_size else DEFAULTS)
    check_sizes(c, c.origin)
    return SiglipVision(
        layers=c.num_hidden_layers,
        dim=c.hidden_size,
        hidden=c.intermediate_size,
        heads=c.num_attention_heads,
        image_size=c.image_size,
        patch_size=c.patch_size,
        channels=c.num_channels,
        act=c.hidden_act,
        eps=c.layer_norm_eps,
        any_size=any_size,
    )


class SiglipEmbeddings(nn.Module):
    """The patches, each with its learned position."""

    def __init__(self, dim: int, image_size: int, patch_size: int, channels: int, any_size: bool) -> None:
        super().__init__()
        self.image_size, self.side, self.any_size = image_size, image_size // patch_size, any_size
        self.patch_embedding = PatchEmbedding(dim, patch_size, channels)
        self.position_embedding = Embedding(self.side**2, dim)

    def forward(self, pixel_values: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """pixel_values [N, C, H, W], mask [N, h, w] of patches -> [N, P, D]."""
        x: torch.Tensor = self.patch_embedding(pixel_values, None if self.any_size else self.image_size)
        if not self.any_size:
            return x.add_(self.position_embedding(torch.arange(x.shape[1], device=x.device)))
        if mask is None:
            # One grid for all of them, so one row of positions.
            mask = torch.ones(1, *self.patch_embedding.grid(pixel_values), dtype=torch.bool, device="cpu")
        places = bucketed(mask, self.side).to(x.device)
        return x.add_(self.position_embedding(places.flatten()).view(len(places), x.shape[1], -1))


class SiglipVision(nn.Module):
    """A vision transformer over patches alone.

    `any_size` lets pictures have other sizes than the one that the positions were learned for: each patch takes the
    position nearest to where it is in its picture (Idefics2, Laurençon et al. 2024; Idefics3, SmolVLM).
    """

    def __init__(
        self,
        *,
        layers: int,
        dim: int,
        hidden: int,
        heads: int,
        image_size: int,
        patch_size: int,
        channels: int = 3,
        act: str = "gelu_pytorch_tanh",
        eps: float = 1e-6,
        any_size: bool = False,
    ) -> None:
        super().__init__()
        self.embeddings = SiglipEmbeddings(dim, image_size, patch_size, channels, any_size)
        self.encoder = VisionEncoder(layers, dim, hidden, heads, act, eps)
        self.post_layernorm = LayerNorm(dim, eps)

    def forward(
        self, pixel_values: torch.Tensor, layer: int | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """pixel_values [N, C, H, W] -> [N, P, D].

        The state after layer `layer`, counted as transformers counts `hidden_states`: 0 is what enters the first layer,
        -1 what leaves the last, -2 what leaves the one before.  None: the last with the final norm (its
        `last_hidden_state`).

        `mask` [N, H / patch, W / patch] of bool, for pictures of several sizes in one batch, has each picture's patches
        at the top left; those of the padding see the picture and are not seen.  None: there is no padding.

        Raises MediaError for pictures of another size than the tower takes, or masks of another; ConfigError for a
        layer that is not there.
        """
        if mask is not None:
            mask = self._checked(mask, pixel_values)
        x = self.embeddings(pixel_values, mask)
        seen = None if mask is None or bool(mask.all()) else mask.flatten(1)
        if layer is not None:
            return self.encoder(x, layer, seen)  # type: ignore[no-any-return]
        return self.post_layernorm(self.encoder(x, mask=seen))  # type: ignore[no-any-return]

    def _checked(self, mask: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        """The mask as bool.  Raises MediaError for one that does not fit the pictures."""
        if not self.embeddings.any_size:
            raise MediaError(f"This tower takes whole pictures of one size; a mask of {list(mask.shape)} came.")
        grid = self.embeddings.patch_embedding.grid(pixel_values)
        due = [len(pixel_values), *grid]
        if list(mask.shape) != due:
            raise MediaError(f"A mask of {list(mask.shape)} patches came; {due} is due.")
        mask = mask.bool()
        if not bool(mask[:, 0, 0].all()):
            raise MediaError("A picture has no patch at the top left; a mask has each picture's patches there.")
        return mask
