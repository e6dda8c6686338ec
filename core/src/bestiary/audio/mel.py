"""The mel scale, on which equal steps sound equal, and the filters that bring a spectrum to it."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from bestiary.errors import ConfigError, shown

SCALES = ("slaney", "htk")
"""That of the Auditory Toolbox (Slaney 1998), linear below 1000 Hz; and 2595 log10(1 + f / 700) (Young, HTK)."""
NORMS = ("slaney", None)
"""Each filter has an area of one, in Hz; or a height of one."""

_STEP = 200.0 / 3.0
_BEND = 1000.0
_RATIO = math.log(6.4) / 27.0


def mel_of(frequency: torch.Tensor, scale: str = "slaney") -> torch.Tensor:
    """Hz to mel."""
    if scale == "htk":
        return 2595.0 * torch.log10(1.0 + frequency / 700.0)
    above = _BEND / _STEP + torch.log(frequency.clamp(min=_BEND) / _BEND) / _RATIO
    return torch.where(frequency >= _BEND, above, frequency / _STEP)


def frequency_of(mel: torch.Tensor, scale: str = "slaney") -> torch.Tensor:
    """Mel to Hz."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    bend = _BEND / _STEP
    return torch.where(mel >= bend, _BEND * torch.exp(_RATIO * (mel - bend)), mel * _STEP)


@lru_cache(32)
def mel_filters(
    rate: int,
    n_fft: int,
    n_mels: int,
    lowest: float = 0.0,
    highest: float | None = None,
    scale: str = "slaney",
    norm: str | None = "slaney",
) -> torch.Tensor:
    """Triangles over the n_fft // 2 + 1 frequencies of a spectrum, [n_mels, F] float32; not to be written to.

    The corners are `n_mels` + 2 frequencies from `lowest` to `highest` Hz (None: half of the rate) at equal steps of
    mel.  Raises ConfigError for numbers that cannot be.
    """
    highest = rate / 2 if highest is None else highest
    if scale not in SCALES or norm not in NORMS:
        raise ConfigError(f"Mel filters of the scale {shown(scale)} and norm {shown(norm)} are unknown.")
    if min(rate, n_fft, n_mels) < 1 or not 0 <= lowest < highest <= rate / 2:
        what = f"{n_mels} mel filters from {lowest} to {highest} Hz cannot be, at {rate} Hz and {n_fft} samples."
        raise ConfigError(what)
    ends = mel_of(torch.tensor([lowest, highest], dtype=torch.float64), scale)
    steps = torch.linspace(0, 1, n_mels + 2, dtype=torch.float64)
    corners = frequency_of(ends[0] + (ends[1] - ends[0]) * steps, scale)
    frequencies = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    left, middle, right = (corners[start : start + n_mels, None] for start in range(3))
    rising, falling = (frequencies - left) / (middle - left), (right - frequencies) / (right - middle)
    filters = torch.minimum(rising, falling).clamp_(min=0)
    if norm == "slaney":
        filters = filters * (2.0 / (right - left))
    return filters.float()
