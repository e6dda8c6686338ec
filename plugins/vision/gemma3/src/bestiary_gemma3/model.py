"""Gemma 3 with eyes (Gemma 3 report 2025): SigLIP sees, a projector makes a few tokens of it, Gemma 3 reads them.

The rows of a picture take the places of its tokens after the embedding was scaled, and are not scaled themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from bestiary.config import Config
from bestiary.errors import ConfigError, shown
from bestiary.nn import CausalLM, RMSNorm
from bestiary_gemma.model import gemma3
from bestiary_siglip import SiglipVision
from bestiary_siglip.model import DEFAULTS
from bestiary_siglip.model import build as siglip

TOKENS = 256
"""For each picture, where the configuration does not say."""

_PATCHES = 1 << 15
"""That pass the tower at once: a request may bring hundreds of crops, and each patch takes kilobytes on its way."""


def build(config: Config) -> CausalLM:
    if config.text.get("use_bidirectional_attention"):
        raise ConfigError(
            '"use_bidirectional_attention" makes an encoder of the text model; here it writes.', where=config.origin
        )
    vision = config.part("vision_config", DEFAULTS)
    if vision.get("model_type", "siglip_vision_model") != "siglip_vision_model":
        raise ConfigError(
            f'The vision tower is a {shown(vision.model_type)}; a "siglip_vision_model" is due.', where=vision.origin
        )
    tower = siglip(vision)
    side = tower.embeddings.side
    model = gemma3(config.text)
    projector = Projector(
        vision.hidden_size, config.text.hidden_size, side, tokens_of(config, side), vision.layer_norm_eps
    )
    model.media = Eyes(tower, projector)
    return model


def tokens_of(config: Config, side: int) -> int:
    """How many tokens a picture of side * side patches becomes.  Raises ConfigError where these cannot be."""
    tokens = TOKENS if config.get("mm_tokens_per_image") is None else config.mm_tokens_per_image
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 1 <= tokens <= side**2:
        raise ConfigError(
            f'"mm_tokens_per_image" is {shown(tokens)}; a whole number from 1 to {side**2} is due.', where=config.origin
        )
    rows = int(tokens**0.5)
    if rows**2 != tokens or side // (side // rows) != rows:
        raise ConfigError(
            f'"mm_tokens_per_image" is {tokens}; {side} x {side} patches are not averaged to so many.',
            where=config.origin,
        )
    return tokens


class Projector(nn.Module):
    """Squares of patches, averaged, normed and brought to the width of the text model.

    The matrix is stored [vision, text], as it is multiplied from the right.
    """

    def __init__(self, vision_dim: int, dim: int, side: int, tokens: int, eps: float) -> None:
        super().__init__()
        self.side, self.rows = side, int(tokens**0.5)
        self.kernel = side // self.rows
        self.mm_soft_emb_norm = RMSNorm(vision_dim, eps, offset=1.0)
        self.mm_input_projection_weight = nn.Parameter(torch.empty(vision_dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [N, side * side, V] -> [N, tokens, D]."""
        rows, kernel, used = self.rows, self.kernel, self.rows * self.kernel
        grid = x.view(len(x), self.side, self.side, -1)[:, :used, :used]  # a rest at the right or below is left out
        squares = grid.reshape(len(x), rows, kernel, rows, kernel, -1)
        y: torch.Tensor = self.mm_soft_emb_norm(squares.mean((2, 4)).flatten(1, 2))
        return y @ self.mm_input_projection_weight


class Eyes(nn.Module):
    """The tower and the projector (a `bestiary.nn.MediaEncoder`)."""

    def __init__(self, tower: SiglipVision, projector: Projector) -> None:
        super().__init__()
        self.tower, self.projector = tower, projector

    def encode(self, media: Sequence[Mapping[str, torch.Tensor]]) -> list[torch.Tensor]:
        """`pixel_values` [1 + crops, C, S, S] of each picture -> its rows [(1 + crops) * tokens, D]."""
        pictures = [tensors["pixel_values"] for tensors in media]
        parts = torch.split(torch.cat(pictures), max(1, _PATCHES // self.projector.side**2))
        rows = torch.cat([self.projector(self.tower(part)) for part in parts])
        return [made.flatten(0, 1) for made in torch.split(rows, [len(picture) for picture in pictures])]
