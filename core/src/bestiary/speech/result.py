"""What was spoken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from bestiary.audio.saving import rate_for, save
from bestiary.audio.waveform import Waveform


@dataclass(frozen=True, eq=False)
class Speech:
    """The sound of one text."""

    waveform: Waveform
    seed: int
    """With which it is made again."""
    finished: bool
    """Whether the model came to an end by itself; False: it was cut at `max_tokens`."""
    codes: torch.Tensor | None = None
    """What a model with a codec wrote: [Q, T] int64."""

    @property
    def samples(self) -> torch.Tensor:
        """[1, N] in float32."""
        return self.waveform.samples

    @property
    def rate(self) -> int:
        return self.waveform.rate

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.waveform.duration

    def save(self, path: str | Path) -> None:
        """Write it in the format of the path's ending: wav, flac, ogg, opus or mp3.  Raises OptionError.

        Where a format has not its rate, as Opus has no 44,100 Hz, it is resampled.
        """
        format = Path(path).suffix.removeprefix(".").lower()
        save(self.waveform.resampled(rate_for(format, self.rate)), path)
