"""A sound that several tests need."""

import math
from collections.abc import Callable

import pytest
import torch

from bestiary.audio.waveform import Waveform


@pytest.fixture(scope="session")
def tone() -> Callable[..., Waveform]:
    """Makes a tone at half of full scale, in each channel a little lower."""

    def make(rate: int = 16000, seconds: float = 0.5, channels: int = 1, pitch: float = 440.0) -> Waveform:
        times = torch.arange(int(rate * seconds)) / rate
        rows = [0.5 * torch.sin(2 * math.pi * pitch / (1 + row) * times) for row in range(channels)]
        return Waveform(torch.stack(rows), rate)

    return make
