"""What a step of FLUX.1 is told besides the latents: when it is, what the text says, and where everything stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from bestiary.errors import OptionError
from bestiary.nn import Linear, Rotation

_WAVES = 256
"""Sines and cosines of a time; no configuration says otherwise."""
_THETA = 10000.0


@dataclass(frozen=True)
class Conditions:
    """What stays the same in all steps of one picture (see `FluxTransformer.prepare`)."""

    text: torch.Tensor
    """Of the text tokens [B, T, D]."""
    vector: torch.Tensor
    """Of the whole text, and of the guidance [B, D]."""
    rotation: Rotation
    """Of the text tokens, then of the latents [T + S, 1, head_dim]."""


class MLPEmbedder(nn.Module):
    """linear_2(silu(linear_1(x))) for x [B, C]."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = Linear(channels, dim, True), Linear(dim, dim, True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))  # type: ignore[no-any-return]


class TimeTextEmbedding(nn.Module):
    """The vector that modulates every norm: of the time, the pooled text and, where it is learned, the guidance."""

    def __init__(self, pooled: int, dim: int, guidance: bool) -> None:
        super().__init__()
        self.timestep_embedder, self.text_embedder = MLPEmbedder(_WAVES, dim), MLPEmbedder(pooled, dim)
        self.guidance_embedder = MLPEmbedder(_WAVES, dim) if guidance else None

    def constant(self, pooled: torch.Tensor, guidance: torch.Tensor | None) -> torch.Tensor:
        """The part that no step changes, of pooled [B, P] and guidance [B] -> [B, D].

        Raises OptionError for a guidance too many or too few.
        """
        vector: torch.Tensor = self.text_embedder(pooled)
        if self.guidance_embedder is None:
            if guidance is not None:
                raise OptionError("This model has not learned a guidance, and one was given.", fix="leave it out")
            return vector
        if guidance is None:
            raise OptionError("This model needs a guidance.", fix="give one, such as 3.5")
        return vector.add_(self.guidance_embedder(waves(guidance, pooled.dtype)))

    def forward(self, timestep: torch.Tensor, constant: torch.Tensor) -> torch.Tensor:
        """timestep [B] and the constant part [B, D] -> [B, D]."""
        moment: torch.Tensor = self.timestep_embedder(waves(timestep, constant.dtype))
        return moment + constant


def waves(time: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Cosines and sines (Vaswani et al. 2017) of a thousand times `time` [B] -> [B, 256]."""
    # Both published implementations round the time to the type of the model: 0.7388 is there 740, not 738.8.
    thousands = (time.to(dtype) * 1000).float()
    half = _WAVES // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32, device=time.device) * (-math.log(_THETA) / half))
    angles = thousands[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), -1).to(dtype)


def rotation_of(positions: torch.Tensor, axes: Sequence[int], dtype: torch.dtype) -> Rotation:
    """How queries and keys at positions [N, A] turn: so many of a head's dimensions by each of the A axes."""
    angles = []
    for place, width in zip(positions.double().unbind(-1), axes, strict=True):
        steps = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / width
        angles.append(place[:, None] / _THETA**steps)
    joined = torch.cat(angles, -1)  # [N, head_dim / 2]
    return Rotation.of(joined.cos().to(dtype), joined.sin().to(dtype), interleaved=True)
