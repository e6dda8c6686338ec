"""The vision tower of CLIP (Radford et al. 2021), with the names of transformers' CLIPVisionModel."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bestiary.config import Config, normalise
from bestiary.nn import Embedding, LayerNorm
from bestiary.nn.vision import PatchEmbedding, VisionEncoder, check_sizes

# What CLIPVisionConfig takes for granted, and configurations therefore leave out: those of LLaVA have no `hidden_act`.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def build(config: Config) -> ClipVision:
    """The tower of a `vision_config`.  Raises ConfigError for one that cannot be."""
    c = normalise(config, config.origin, DEFAULTS)
    check_sizes(c, c.origin)
    return ClipVision(
        layers=c.num_hidden_layers,
        dim=c.hidden_size,
        hidden=c.intermediate_size,
        heads=c.num_attention_heads,
        image_size=c.image_size,
        patch_size=c.patch_size,
        channels=c.num_channels,
        act=c.hidden_act,
        eps=c.layer_norm_eps,
    )


class ClipEmbeddings(nn.Module):
    """The class token, then the patches, each with its learned position."""

    def __init__(self, dim: int, image_size: int, patch_size: int, channels: int) -> None:
        super().__init__()
        self.image_size, count = image_size, (image_size // patch_size) ** 2 + 1
        self.class_embedding = nn.Parameter(torch.empty(dim))
        self.patch_embedding = PatchEmbedding(dim, patch_size, channels, bias=False)
        self.position_embedding = Embedding(count, dim)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """pixel_values [N, C, H, W] -> [N, 1 + P, D]."""
        patches = self.patch_embedding(pixel_values, self.image_size)
        x = torch.cat((self.class_embedding.expand(len(patches), 1, -1), patches), 1)
        return x.add_(self.position_embedding(torch.arange(x.shape[1], device=x.device)))


class ClipVision(nn.Module):
    """A vision transformer with a class token, and a norm before its layers."""

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
        act: str = "quick_gelu",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.embeddings = ClipEmbeddings(dim, image_size, patch_size, channels)
        self.pre_layrnorm = LayerNorm(dim, eps)  # spelt so in the checkpoints
        self.encoder = VisionEncoder(layers, dim, hidden, heads, act, eps)
        self.post_layernorm = LayerNorm(dim, eps)

    def forward(self, pixel_values: torch.Tensor, layer: int | None = None) -> torch.Tensor:
        """pixel_values [N, C, H, W] -> [N, 1 + P, D], of which the first row is the class token's.

        The state after layer `layer`, counted as transformers counts `hidden_states`: 0 is what enters the first layer,
        -1 what leaves the last (its `last_hidden_state`), -2, LLaVA's, what leaves the one before.  None: the last with
        the final norm, of which transformers gives the class token's row (`pooler_output`).

        Raises MediaError for pictures of another size, ConfigError for a layer that is not there.
        """
        x = self.pre_layrnorm(self.embeddings(pixel_values))
        if layer is not None:
            return self.encoder(x, layer)  # type: ignore[no-any-return]
        return self.post_layernorm(self.encoder(x))  # type: ignore[no-any-return]
