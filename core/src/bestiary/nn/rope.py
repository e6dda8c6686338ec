"""Rotary position embedding (Su et al. 2021) and the ways in which models stretch it.

Frequencies follow the papers: linear (Chen et al. 2023), dynamic NTK (bloc97 2023), YaRN (Peng et al. 2023), LongRoPE
(Ding et al. 2024), and Llama 3.1's; parameter names are those of `rope_parameters` in Hugging Face configurations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bestiary.errors import ConfigError


@dataclass(frozen=True)
class Rotation:
    """The angles of one step, for the first R of each head's dimensions.

    cos and sin [T, 1, R], each angle twice: at the places of the pair that it turns, the sine negative at the first.
    """

    cos: torch.Tensor
    sin: torch.Tensor
    interleaved: bool = False

    @classmethod
    def of(cls, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool) -> Rotation:
        """From cos and sin [T, R / 2] of each pair: (i, i + R/2), or (2i, 2i + 1) where interleaved."""
        if interleaved:
            return cls(cos.repeat_interleave(2, -1)[:, None], torch.stack((-sin, sin), -1).flatten(-2)[:, None], True)
        return cls(torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None])

    def to(self, dtype: torch.dtype) -> Rotation:
        """The same angles in the type of what they turn, so that this is rounded once a step and not in each layer."""
        return Rotation(self.cos.to(dtype), self.sin.to(dtype), self.interleaved)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Turn x [T, H, D], of the same type."""
        width = self.cos.shape[-1]
        if width == x.shape[-1]:
            return self._turned(x, width)
        return torch.cat((self._turned(x[..., :width], width), x[..., width:]), -1)

    def _turned(self, x: torch.Tensor, width: int) -> torch.Tensor:
        swapped = self._neighbours(x) if self.interleaved else x.roll(width // 2, -1)
        turned: torch.Tensor = x * self.cos + swapped * self.sin
        return turned

    def _neighbours(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(*x.shape[:-1], -1, 2).flip(-1).flatten(-2)


class Rope(nn.Module):
    """Angles from positions, by the `parameters` of one kind of layer (`Config.rope`).

    With `mrope_section` among them (M-RoPE, Qwen2-VL, arXiv 2409.12191) positions may be three, of time, row and
    column: so many pairs turn by each.

    `interleaved` pairs neighbouring dimensions (GLM, DeepSeek, GPT-J).  Scalings that depend on the length of the
    sequence use each token's own length, so a batch gives what each sequence alone gives.
    """

    frequencies: torch.Tensor

    def __init__(self, head_dim: int, parameters: Mapping[str, Any], *, interleaved: bool = False) -> None:
        super().__init__()
        self.settings, self.interleaved = dict(parameters), interleaved
        self.kind = self.settings.get("rope_type", "default")
        if self.kind not in _FREQUENCIES:
            known = ", ".join(sorted(_FREQUENCIES))
            raise ConfigError(f'The rotary scaling "{self.kind}" is unknown; known are {known}.')
        # Proportional keeps the whole head and leaves the rest of its pairs at frequency zero.
        partial = 1.0 if self.kind == "proportional" else self.settings.get("partial_rotary_factor") or 1.0
        self.width = int(head_dim * partial)
        try:
            frequencies, self.magnitude = _FREQUENCIES[self.kind](self.width, self.settings)
        except KeyError as error:
            raise ConfigError(f'The rotary scaling "{self.kind}" needs {error} in rope_parameters.') from error
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ConfigError(f'The rotary scaling "{self.kind}" has an impossible value: {error}.') from error
        sections = self.settings.get("mrope_section")
        if sections is not None and sum(sections) != self.width // 2:
            raise ConfigError(f"mrope_section {sections} has not the {self.width // 2} pairs of a head.")
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, positions: torch.Tensor, lengths: torch.Tensor) -> Rotation:
        """positions [T] or [3, T] and lengths [T] -> the rotation of the step, in float32."""
        angles = positions.float()[..., None] * self._frequencies(lengths)
        if positions.ndim == 2:
            parts = torch.split(angles, self.settings["mrope_section"], -1)
            angles = torch.cat([part[place % 3] for place, part in enumerate(parts)], -1)
        return Rotation.of(angles.cos() * self.magnitude, angles.sin() * self.magnitude, self.interleaved)

    def _frequencies(self, lengths: torch.Tensor) -> torch.Tensor:
        if self.kind == "longrope":  # frequencies [2, R/2]: short, long
            chosen = (lengths > self.settings["original_max_position_embeddings"]).long()
            stretched: torch.Tensor = self.frequencies[chosen]
            return stretched
        if self.kind == "dynamic":
            longest, factor = self.settings["max_position_embeddings"], self.settings["factor"]
            stretch = factor * lengths.clamp(min=longest).float() / longest - (factor - 1)
            base = self.settings["rope_theta"] * stretch ** (self.width / (self.width - 2))
            exponents = torch.arange(0, self.width, 2, device=lengths.device).float() / self.width
            moving: torch.Tensor = 1.0 / base[:, None] ** exponents
            return moving
        return self.frequencies


# Frequencies [R / 2] and the magnitude of the rotation, by scaling.  Made on the CPU even while a model is built on the
# meta device, for they are computed and not loaded.


def _plain(width: int, base: float) -> torch.Tensor:
    return 1.0 / base ** (torch.arange(0, width, 2, device="cpu").float() / width)


def _default(width: int, p: Mapping[str, Any]) -> tuple[torch.Tensor, float]:
    return _plain(width, p["rope_theta"]), 1.0


def _linear(width: int, p: Mapping[str, Any]) -> tuple[torch.Tensor, float]:
    return _plain(width, p["rope_theta"]) / p["factor"], 1.0


def _dynamic(width: int, p: Mapping[str, Any]) -> tuple[torch.Tensor, float]:
    """Within the original context; a longer sequence makes its own."""
    if p["factor"] < 1 or p["max_position_embeddings"] < 1:
        raise ValueError("factor and max_position_embeddings are at least 1")
    return _default(width, p)


def _proportional(width: int, p: Mapping[str, Any]) -> tuple[torch.Tensor, float]:
    frequencies = _plain(width, p["rope_theta"]) / p.get("factor", 1.0)
    frequencies[int((p.get("partial_rotary_factor") or 1.0) * width // 2) :] = 0.0
    return frequencies, 1.0


def _llama3(width: int, p: Mapping[str, Any]) -> tuple[torch.Tensor, float]:
    """Long waves are stretched by the factor, short ones kept, those between interpolated (Llama 3.1 release)."""
    frequencies = _plain(width, p["rope_theta"])
    turns = p["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = p["low_freq_factor"], p["high_freq_factor"]
    if low >= high:
        raise ValueError("low_freq_factor must be less than high_freq_factor")
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (kept + (1 - kept) / p["factor"]), 1.0


def _yarn(width: int, p: Mapping[str, Any]) -> tuple[torch.Tensor, float]:
    base, original = p["rope_theta"], p["original_max_position_embeddings"]
    factor = p.get("factor") or p["max_position_embeddings"] / original

    def dimension(turns: float) -> float:
        """The pair that turns so many times within the original context."""
        return width * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = dimension(p.get("beta_fast") or 32), dimension(p.get("beta_slow") or 1)
    if p.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp = ((torch.arange(width // 2, device="cpu").float() - low) / (max(high - low, 0.001))).clamp(0, 1)
    frequencies = _plain(width, base)
    return frequencies * (1 - ramp) + frequencies / factor * ramp, _yarn_magnitude(factor, p)


def _yarn_magnitude(factor: float, p: Mapping[str, Any]) -> float:
    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if p.get("attention_factor") is not None:
        return float(p["attention_factor"])
    if p.get("mscale") and p.get("mscale_all_dim"):
        return magnitude(p["mscale"]) / magnitude(p["mscale_all_dim"])
    return magnitude(1.0)


def _longrope(width: int, p: Mapping[str, Any]) -> tuple[torch.Tensor, float]:
    original = p["original_max_position_embeddings"]
    factor = p.get("factor") or p["max_position_embeddings"] / original
    magnitude = p.get("attention_factor")
    if magnitude is None:
        magnitude = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    stretches = torch.tensor([p["short_factor"], p["long_factor"]], dtype=torch.float32, device="cpu")
    if stretches.shape != (2, width // 2):
        raise ValueError(f"short_factor and long_factor are due for each of {width // 2} pairs")
    return _plain(width, p["rope_theta"]) / stretches, magnitude


_FREQUENCIES = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "proportional": _proportional,
}
