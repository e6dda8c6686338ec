"""The transcription pipeline: a sound in, what was said in it out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import torch

from bestiary.audio.limits import AudioLimits
from bestiary.audio.opening import open_audio
from bestiary.audio.transcript import Segment, Transcript
from bestiary.closing import Closing
from bestiary.errors import OptionError, RequestError, shown
from bestiary.generation.tokenizer import Tokenizer
from bestiary.identified import Identified
from bestiary.loading import Pull, generation_config
from bestiary.media.limits import MediaLimits


class Listener(Protocol):
    """What a model's `listener(tokenizer, config, generation_config)` gives: it writes down what it hears.

    The model says in `rate` which sound it hears, in Hz; samples are [N] in float32, of one channel.
    """

    def transcribe(
        self, samples: torch.Tensor, *, heard: Callable[[Segment], None] | None = None, **options: Any
    ) -> Transcript:
        """`heard` is called with each segment once it is certain.  Raises OptionError for options it does not have."""

    def detect_language(self, samples: torch.Tensor) -> dict[str, float]:
        """How probable each language is, the most probable first.  Raises RequestError where it cannot tell."""


def long_limits() -> AudioLimits:
    """Four hours, for a program's own recordings."""
    return AudioLimits(duration=4 * 3600, decoded_bytes=6 << 30, source=MediaLimits(bytes=1 << 30))


class TranscriptionPipeline(Closing):
    """A speech recogniser that is ready; a context manager that frees memory.  Calls wait for each other.

    The option `audio_limits` of `bestiary.load` says what sounds it takes; by default four hours (`long_limits`).
    """

    def __init__(self, identified: Identified, pull: Pull) -> None:
        limits = identified.options.get("audio_limits")
        if limits is not None and not isinstance(limits, AudioLimits):
            raise OptionError(f"audio_limits is {shown(limits)}; a bestiary.audio.limits.AudioLimits is due.")
        self.limits = limits or long_limits()
        self.identified, self.tokenizer = identified, Tokenizer.from_repository(identified.repository)
        generation = generation_config(identified.repository)
        loaded = pull(encode=self.tokenizer.encode)
        self.device, self.dtype = loaded.device, loaded.dtype
        model: Any = loaded.model
        self.rate: int = model.rate
        """Hz at which the model hears; sounds of other rates are resampled."""
        self._listener: Listener | None = model.listener(self.tokenizer, identified.config, generation)
        self._lock = threading.Lock()

    def transcribe(
        self,
        source: Any,
        *,
        rate: int | None = None,
        heard: Callable[[Segment], None] | None = None,
        **options: Any,
    ) -> Transcript:
        """What is said in a sound: a path, a URL, bytes, an open file, a Waveform, or an array with its `rate` in Hz.

        Channels are mixed.  `heard` is called with each segment once it is certain; what it raises ends the work.
        Other options are the model's.  Raises MediaError for a sound that cannot be taken.
        """
        samples = self._open(source, rate)
        with self._lock, torch.inference_mode():
            return self._ready().transcribe(samples, heard=heard, **options)

    def detect_language(self, source: Any, *, rate: int | None = None) -> dict[str, float]:
        """How probable each language is in the beginning of a sound, the most probable first."""
        samples = self._open(source, rate)
        with self._lock, torch.inference_mode():
            return self._ready().detect_language(samples)

    def close(self) -> None:
        """Free the memory; calls after it raise RequestError."""
        with self._lock:
            self._listener = None

    def _open(self, source: Any, rate: int | None) -> torch.Tensor:
        opened = open_audio(source, self.limits, rate=rate).mono().resampled(self.rate)
        if not opened.length:
            raise RequestError("The sound has no samples.")
        return opened.samples[0]

    def _ready(self) -> Listener:
        if self._listener is None:
            raise RequestError("The pipeline is closed.", fix="load the model again")
        return self._listener
