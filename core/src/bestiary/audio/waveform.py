"""A sound: samples, and how many of them make a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from bestiary.audio.limits import HIGHEST_RATE
from bestiary.audio.resampling import resample
from bestiary.errors import MediaError, shown


@dataclass(frozen=True, eq=False)
class Waveform:
    """Samples [C, N] in float32, full scale at -1 and 1, and their rate in Hz.

    Raises MediaError where they are no such tensor, or the rate cannot be.
    """

    samples: torch.Tensor
    rate: int

    def __post_init__(self) -> None:
        samples: Any = self.samples
        if not isinstance(samples, torch.Tensor) or samples.ndim != 2 or samples.dtype != torch.float32:
            came = f"{samples.dtype} {list(samples.shape)}" if isinstance(samples, torch.Tensor) else shown(samples)
            raise MediaError(f"Samples came as {came}; torch.float32 [channels, samples] is due.")
        check_rate(self.rate)

    @property
    def channels(self) -> int:
        return self.samples.shape[0]

    @property
    def length(self) -> int:
        """Samples of each channel."""
        return self.samples.shape[1]

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.length / self.rate

    def mono(self) -> Waveform:
        """The mean of its channels, as one."""
        return self if self.channels == 1 else Waveform(self.samples.mean(0, keepdim=True), self.rate)

    def resampled(self, rate: int) -> Waveform:
        """The same sound at another rate (see `resample`)."""
        check_rate(rate)
        return self if rate == self.rate else Waveform(resample(self.samples, self.rate, rate), rate)


def check_rate(rate: Any) -> None:
    """Raises MediaError for what is no rate in Hz."""
    if isinstance(rate, bool) or not isinstance(rate, int) or not 1 <= rate <= HIGHEST_RATE:
        raise MediaError(f"A rate of {shown(rate)} Hz cannot be; a whole number from 1 to {HIGHEST_RATE} is due.")
