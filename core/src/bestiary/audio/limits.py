"""How long sounds may be, and from where they may come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bestiary.asking import check_whole
from bestiary.errors import OptionError, shown
from bestiary.media.limits import DEFAULT as MEDIA
from bestiary.media.limits import MediaLimits

HIGHEST_RATE = 768_000
MOST_CHANNELS = 1024
"""That libsndfile reads."""


@dataclass(frozen=True)
class AudioLimits:
    """What `open_audio` accepts; all of it is known, and checked, before a sample is decoded.

    The defaults are for one request.  A transcription of hours asks for more of `duration` and of `source.bytes`.
    Raises OptionError for values out of bounds.
    """

    duration: float = 1800.0
    """Seconds of one sound."""
    rate: int = HIGHEST_RATE
    """Samples a second."""
    channels: int = 8
    decoded_bytes: int = 1 << 30
    """Of the samples in memory, four for each of each channel: a small file can be hours of silence."""
    source: MediaLimits = MEDIA
    """Of the file: its bytes, and whether paths and URLs are opened at all."""

    def __post_init__(self) -> None:
        duration: Any = self.duration
        if isinstance(duration, bool) or not isinstance(duration, int | float) or not 0 < duration < math.inf:
            raise OptionError(f"duration is {shown(duration)}; a number of seconds above 0 is due.")
        check_whole("rate", self.rate, 1, HIGHEST_RATE)
        check_whole("channels", self.channels, 1, MOST_CHANNELS)
        check_whole("decoded_bytes", self.decoded_bytes, 4, 1 << 44)
        if not isinstance(self.source, MediaLimits):
            raise OptionError(f"source is {shown(self.source)}; a MediaLimits is due.")


DEFAULT = AudioLimits()
"""For one sound of a request."""
