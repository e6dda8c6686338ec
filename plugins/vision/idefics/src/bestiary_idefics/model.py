"""Idefics3 (Laurençon et al. 2024, arXiv 2408.12637) and SmolVLM (Marafioti et al. 2025, arXiv 2504.05299).

SigLIP sees each tile of a picture alone.  A pixel shuffle lays the patches of a small square side by side, and one
matrix makes of them what a Llama takes in place of the embedding of a token.  Both families are this network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt

import torch
from torch import nn

import bestiary_llama.model as llama
import bestiary_siglip as siglip
from bestiary.config import Config
from bestiary.errors import ConfigError, shown
from bestiary.nn import CausalLM, Linear
from bestiary_idefics.geometry import scale_factor

TOGETHER = 32
"""Tiles that pass the tower at once: what it holds meanwhile does not grow with a video."""


def build(config: Config) -> CausalLM:
    """The Llama of `text_config`, with eyes.  Raises ConfigError for another text model."""
    kind = config.text.get("model_type", "llama")
    if kind != "llama":
        raise ConfigError(f"The text model is {shown(kind)}; a llama is due.", where=config.text.origin)
    tower = siglip.build(config.part("vision_config"), any_size=True)
    width = tower.post_layernorm.weight.shape[0]
    model = llama.build(config)
    model.media = Eyes(tower, Connector(width, config.text.hidden_size, scale_factor(config)))
    return model


class Connector(nn.Module):
    """Squares of patches, each as one row of the text model."""

    def __init__(self, dim: int, text_dim: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.modality_projection = nn.ModuleDict({"proj": Linear(dim * scale**2, text_dim)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The patches x [N, P, D] of square tiles -> [N, P / scale^2, text D], in the order in which one reads."""
        side, scale = isqrt(x.shape[1]), self.scale
        squares = x.view(len(x), side // scale, scale, side // scale, scale, -1).transpose(2, 3)
        return self.modality_projection["proj"](squares.reshape(len(x), (side // scale) ** 2, -1))  # type: ignore[no-any-return]


class Eyes(nn.Module):
    """What makes rows of pictures: `CausalLM.media`."""

    def __init__(self, tower: siglip.SiglipVision, projector: Connector) -> None:
        super().__init__()
        self.tower, self.projector = tower, projector

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Tiles [N, 3, H, H] -> [N, rows, D]."""
        return torch.cat([self.projector(self.tower(part)) for part in torch.split(pixel_values, TOGETHER)])

    def encode(self, media: Sequence[Mapping[str, torch.Tensor]]) -> list[torch.Tensor]:
        """`pixel_values` [tiles, 3, H, H] of each medium -> its rows, tile after tile [tiles * rows, D]."""
        tiles = [each["pixel_values"] for each in media]
        alike: dict[torch.Size, list[int]] = {}
        for place, each in enumerate(tiles):
            alike.setdefault(each.shape[1:], []).append(place)
        made: dict[int, torch.Tensor] = {}
        for places in alike.values():
            rows = self(torch.cat([tiles[place] for place in places]))
            parts = torch.split(rows, [len(tiles[place]) for place in places])
            made.update((place, part.flatten(0, 1)) for place, part in zip(places, parts, strict=True))
        return [made[place] for place in range(len(tiles))]
