"""The speech pipeline: texts in, sounds out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from bestiary.audio.limits import AudioLimits
from bestiary.audio.stretching import Stretcher
from bestiary.audio.waveform import Waveform
from bestiary.closing import Closing
from bestiary.errors import OptionError, RequestError, shown
from bestiary.identified import Identified
from bestiary.loading import Pull
from bestiary.networks import Networks
from bestiary.parts import Given, find_parts
from bestiary.progress import bar
from bestiary.records import Packing, Progress, resolve
from bestiary.speech.model import Piece, SpeechModel
from bestiary.speech.request import SpeechRequest, make_request
from bestiary.speech.result import Speech

CODEC = "audio_tokenizer"
"""The part that `dac_model_id` means, as processors of Hugging Face call it."""


@dataclass(frozen=True)
class SpeechLoadOptions:
    """What `bestiary.load` takes for a speech model, besides its own options."""

    parts: Given | None = None
    """By part ("audio_tokenizer") where it is to come from; or one repository that has all that is missing."""
    dac_model_id: str | None = None
    """The codec, a hub id, a folder or a file: the same as parts={"audio_tokenizer": ...}."""
    audio_limits: AudioLimits | None = None
    """What voices may be given; a minute where nothing is said."""

    def __post_init__(self) -> None:
        if self.dac_model_id is not None and not isinstance(self.dac_model_id, str):
            raise OptionError(f"dac_model_id is {shown(self.dac_model_id)}; a hub id or a path is due.")
        if self.dac_model_id is not None and (isinstance(self.parts, str) or CODEC in (self.parts or {})):
            raise OptionError("Both dac_model_id and parts say where the codec is.", fix="leave one of them out")
        if self.audio_limits is not None and not isinstance(self.audio_limits, AudioLimits):
            raise OptionError(
                f"audio_limits is {shown(self.audio_limits)}; a bestiary.audio.limits.AudioLimits is due."
            )

    @property
    def given(self) -> Given | None:
        """Where the parts are to come from."""
        if self.dac_model_id is None:
            return self.parts
        return {**(self.parts if isinstance(self.parts, Mapping) else {}), CODEC: self.dac_model_id}


class SpeechPipeline(Closing):
    """A speech model that is ready; a context manager that frees memory.

    Calls take the options of `bestiary.speech.request.SpeechOptions`, and wait for each other.
    """

    def __init__(self, identified: Identified, pull: Pull) -> None:
        options = SpeechLoadOptions(**identified.options)
        self.identified = identified
        self._limits = options.audio_limits or AudioLimits(duration=60)
        self._parts = Networks(identified, find_parts(identified, options.given), pull, None)
        build: Callable[[Identified, Networks], SpeechModel] = resolve(identified.architecture.model)
        self._model: SpeechModel | None = build(identified, self._parts)
        self._parts.load()
        self.terms = self._model.terms
        """What the model makes, and what it does where nothing is said."""
        self._lock = threading.Lock()

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        progress: bool | Callable[[Progress], None] | None = None,
        **options: Any,
    ) -> Any:
        """The `Speech` of a text; a list of them where there are several texts, which are spoken together.

        `progress` is True for a bar on stderr (the default on a terminal), False for silence, or a function that gets
        Progress events.
        """
        request = self._asked(text, options)
        pieces: list[list[torch.Tensor]] = [[] for _ in request.utterances]
        codes: list[list[torch.Tensor]] = [[] for _ in pieces]
        finished = [False] * len(pieces)
        with nullcontext(progress) if callable(progress) else bar(progress) as report:
            for piece in self._pieces(request, None, report):
                pieces[piece.text].append(piece.samples)
                codes[piece.text] += [] if piece.codes is None else [piece.codes]
                finished[piece.text] |= piece.finished
        made = [
            Speech(
                Waveform(torch.cat(pieces[place])[None], self.rate),
                utterance.seed,
                finished[place],
                torch.cat(codes[place], 1) if codes[place] else None,
            )
            for place, utterance in enumerate(request.utterances)
        ]
        return made[0] if isinstance(text, str) else made

    generate = __call__

    def stream(self, text: str, *, chunk: float = 0.5, **options: Any) -> Iterator[Waveform]:
        """The sound of a text in pieces of about `chunk` seconds, each as soon as it is there.

        Together they are what a call gives.  Leaving the loop ends the work.
        """
        if not isinstance(text, str):
            raise RequestError("One text is spoken in pieces.", fix="call the pipeline for several")
        if isinstance(chunk, bool) or not isinstance(chunk, int | float) or not 0 < chunk <= 3600:
            raise OptionError(f"chunk is {shown(chunk)}; a number of seconds above 0 is due.")
        request = self._asked(text, options)
        return self._streamed(request, max(1, round(chunk * self.terms.frame_rate)))

    async def agenerate(self, text: str | Sequence[str], **options: Any) -> Any:
        """`generate` without blocking the event loop."""
        return await asyncio.to_thread(self, text, **options)

    @property
    def rate(self) -> int:
        """Samples a second of what is made."""
        return self.terms.rate

    @property
    def packing(self) -> Mapping[str, Packing]:
        """What became of each weight that was packed while it was loaded, by part and parameter."""
        return self._parts.packing

    @property
    def nbytes(self) -> int:
        """What the weights take."""
        return self._parts.nbytes

    def close(self) -> None:
        """Free the memory; calls after it raise RequestError."""
        with self._lock:
            self._model = None
            self._parts.close()

    def __repr__(self) -> str:
        name = self.identified.architecture.name
        return f"<SpeechPipeline {name} of {self.identified.repository.origin}{'' if self._model else ', closed'}>"

    def _asked(self, text: str | Sequence[str], options: Mapping[str, Any]) -> SpeechRequest:
        request = make_request(text, options, self.terms, self._limits)
        with self._lock:
            self._ready().check(request)
        return request

    def _streamed(self, request: SpeechRequest, frames: int) -> Iterator[Waveform]:
        for piece in self._pieces(request, frames, None):
            if len(piece.samples):
                yield Waveform(piece.samples[None], self.rate)

    def _pieces(
        self, request: SpeechRequest, frames: int | None, report: Callable[[Progress], None] | None
    ) -> Iterator[Piece]:
        """What the model makes, at the speed that was asked for."""
        with self._lock:
            pieces = self._ready().speak(request, frames, report)
        stretchers = [Stretcher(self.rate, request.speed) for _ in request.utterances]
        while True:
            with self._lock:  # not while somebody listens to a piece
                self._ready()
                piece = next(pieces, None)
            if piece is None:
                return
            stretcher = stretchers[piece.text]
            samples = stretcher.push(piece.samples)
            if piece.last:
                samples = torch.cat((samples, stretcher.finish()))
            yield replace(piece, samples=samples)

    def _ready(self) -> SpeechModel:
        if self._model is None:
            raise RequestError("The pipeline is closed.", fix="load the model again")
        return self._model
