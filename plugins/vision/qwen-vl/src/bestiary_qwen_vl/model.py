"""Qwen2-VL and Qwen2.5-VL: a tower, what merges its patches into rows, and the language model of Qwen2.

Tokens have three positions, time, row and column (M-RoPE): so many pairs of a head turn by each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

import bestiary_qwen.model
from bestiary.config import Config
from bestiary.errors import ConfigError, shown
from bestiary.nn import CausalLM
from bestiary_qwen_vl import shape
from bestiary_qwen_vl.grid import Grid
from bestiary_qwen_vl.shape import Shape
from bestiary_qwen_vl.tower import PatchMerger, Tower

_SECTIONS = (16, 24, 24)
"""Pairs that turn by time, row and column, where the configuration does not say."""
_PATCHES = 1 << 14
"""That go through the tower at once, unless one medium has more: what lies between its layers is much larger."""


def qwen2_vl(config: Config) -> CausalLM:
    return _build(config, Eyes(shape.qwen2_vl(config), modern=False))


def qwen2_5_vl(config: Config) -> CausalLM:
    return _build(config, Eyes(shape.qwen2_5_vl(config), modern=True))


def _build(config: Config, eyes: Eyes) -> CausalLM:
    text = config.text
    kinds = {kind: {"mrope_section": _SECTIONS, **parameters} for kind, parameters in text.rope_parameters.items()}
    for parameters in kinds.values():
        _check_sections(parameters["mrope_section"], text.origin)
    lm = bestiary_qwen.model.build(Config({**text, "rope_parameters": kinds}, text.origin))
    lm.media = eyes
    return lm


def _check_sections(sections: object, where: str) -> None:
    if not isinstance(sections, list | tuple) or len(sections) != 3:
        raise ConfigError(f'"mrope_section" is {shown(sections)}; three whole numbers are due.', where=where)
    if not all(type(each) is int and each >= 0 for each in sections):
        raise ConfigError(f'"mrope_section" is {shown(sections)}; three whole numbers are due.', where=where)


class Eyes(nn.Module):
    """Pictures and videos -> rows in place of tokens."""

    def __init__(self, shape: Shape, *, modern: bool) -> None:
        super().__init__()
        self.merge = shape.merge
        self.tower, self.projector = Tower(shape, modern=modern), PatchMerger(shape, modern=modern)

    def encode(self, media: Sequence[Mapping[str, torch.Tensor]]) -> list[torch.Tensor]:
        """pixel_values [P, numbers] and image_grid_thw [1, 3] of each, or their twins of videos -> [P / merge^2, D]."""
        opened = [_patches(tensors) for tensors in media]
        rows: list[torch.Tensor] = []
        for part in _parts([grid for _, grid in opened]):
            grids = [grid for _, grid in opened[part]]
            made = self.projector(self.tower(torch.cat([patches for patches, _ in opened[part]]), grids))
            # Each for itself: rows are kept and forgotten one by one.
            rows += [each.clone() for each in torch.split(made, [grid.rows(self.merge) for grid in grids])]
        return rows


def _patches(tensors: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, Grid]:
    if "pixel_values" in tensors:
        return tensors["pixel_values"], Grid(*tensors["image_grid_thw"][0].tolist())
    return tensors["pixel_values_videos"], Grid(*tensors["video_grid_thw"][0].tolist())


def _parts(grids: Sequence[Grid]) -> Iterator[slice]:
    """Neighbours that go through the tower together."""
    start = patches = 0
    for place, grid in enumerate(grids):
        if place > start and patches + grid.patches > _PATCHES:
            yield slice(start, place)
            start, patches = place, 0
        patches += grid.patches
    if grids:
        yield slice(start, len(grids))
