"""LLaVA 1.5 (Liu et al. 2023, arXiv 2310.03744) and LLaVA-NeXT (Liu et al. 2024): a tower, a projector, a text model.

The tower is that of CLIP, or SigLIP; the projector two layers; the text model Llama, Mistral or Qwen2, which sees the
projector's rows in place of the embeddings of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

import bestiary_clip.model
import bestiary_siglip
from bestiary.config import Config
from bestiary.errors import ConfigError, shown
from bestiary.nn import CausalLM, Linear, activation
from bestiary_llama.model import build as llama
from bestiary_llava.anyres import Anyres
from bestiary_llava.sight import Sight, read_sight
from bestiary_qwen.model import build as qwen

TEXTS: Mapping[str, Callable[[Config], CausalLM]] = {"llama": llama, "mistral": llama, "qwen2": qwen}
TOWERS: Mapping[str, Callable[[Config], nn.Module]] = {
    "clip_vision_model": bestiary_clip.model.build,
    "siglip_vision_model": bestiary_siglip.build,
}
_AT_ONCE = 32
"""Tiles that the tower sees in one pass, so that a prompt of many pictures needs no more memory than one of a few."""


def llava(config: Config) -> CausalLM:
    return _with_eyes(config, read_sight(config))


def llava_next(config: Config) -> CausalLM:
    return _with_eyes(config, read_sight(config, any_resolution=True))


def _with_eyes(config: Config, sight: Sight) -> CausalLM:
    kind = config.text.get("model_type")
    if not isinstance(kind, str) or kind not in TEXTS:
        raise ConfigError(
            f"The text model is {shown(kind)}; those that are known under LLaVA are {', '.join(sorted(TEXTS))}.",
            where=config.text.origin,
        )
    bias = config.get("multimodal_projector_bias", True)
    if not isinstance(bias, bool):
        raise ConfigError(f'"multimodal_projector_bias" is {shown(bias)}; true or false is due.', where=config.origin)
    lm = TEXTS[kind](config)
    tower = TOWERS[sight.vision.model_type](sight.vision)
    if sight.vision.get("post_layernorm") is False:  # a GGUF file, which has no weights that nobody reads
        del tower.post_layernorm
    seen, dim = sight.vision.get("hidden_size", 768) * len(sight.layers), config.text.hidden_size
    projector = Projector(seen, dim, str(config.get("projector_hidden_act", "gelu")), bias)
    lm.media = Eyes(tower, projector, sight, dim)
    return lm


class Projector(nn.Module):
    """linear_2(act(linear_1(x))) for x [..., D of the tower] -> [..., D]."""

    def __init__(self, seen: int, dim: int, act: str, bias: bool) -> None:
        super().__init__()
        self.linear_1, self.linear_2, self.act = Linear(seen, dim, bias), Linear(dim, dim, bias), activation(act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_2(self.act(self.linear_1(x)))  # type: ignore[no-any-return]


class Eyes(nn.Module):
    """Pictures to rows of the text model."""

    def __init__(self, tower: nn.Module, projector: Projector, sight: Sight, dim: int) -> None:
        super().__init__()
        self.tower, self.projector = tower, projector
        self.layers, self.skip, self.anyres = sight.layers, sight.skip, sight.anyres
        self.image_newline = nn.Parameter(torch.empty(dim)) if sight.anyres else None

    def encode(self, media: Sequence[Mapping[str, torch.Tensor]]) -> list[torch.Tensor]:
        """Of each picture `pixel_values` [tiles, 3, H, W], the first the whole picture, and in LLaVA-NeXT `image_sizes`
        [2], its own height and width -> [rows, D]."""
        pixels = torch.cat([each["pixel_values"] for each in media])
        rows = torch.cat([self.projector(self._seen(part)) for part in torch.split(pixels, _AT_ONCE)])
        of_each = torch.split(rows, [len(each["pixel_values"]) for each in media])
        if self.anyres is None:
            return [rows.flatten(0, 1) for rows in of_each]
        sizes = [each["image_sizes"].tolist() for each in media]
        return [self._arranged(rows, self.anyres, *size) for rows, size in zip(of_each, sizes, strict=True)]

    def _seen(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels [N, 3, H, W] -> the states that are read, side by side [N, rows, layers * D]."""
        x = self.tower(pixels, 0)
        states = {0: x}
        for place, block in enumerate(self.tower.encoder.layers[: max(self.layers)], 1):  # type: ignore[union-attr, index]
            x = states[place] = block(x)
        return torch.cat([states[layer][:, self.skip :] for layer in self.layers], -1)

    def _arranged(self, rows: torch.Tensor, anyres: Anyres, height: int, width: int) -> torch.Tensor:
        """rows [1 + tiles, P, D] of a picture of this size -> [rows, D]: the whole first, then line by line."""
        assert self.image_newline is not None
        lines, columns = anyres.kept(height, width)
        tiles = rows[1:].view(*anyres.tiles(height, width), anyres.side, anyres.side, -1)
        patches = tiles.transpose(1, 2).flatten(2, 3).flatten(0, 1)[lines, columns]  # [lines, columns, D]
        ends = self.image_newline.expand(len(patches), 1, -1)
        return torch.cat((rows[0], torch.cat((patches, ends), 1).flatten(0, 1)))
