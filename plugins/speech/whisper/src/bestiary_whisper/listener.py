"""A whole sound written down, window by window (section 3.8 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from bestiary.asking import options_of
from bestiary.audio.spectral import WHISPER, log_mel
from bestiary.audio.transcript import Segment, Transcript
from bestiary.errors import RequestError
from bestiary.generation.sources import Pair
from bestiary.generation.tokenizer import Tokenizer
from bestiary_whisper.decoding import Desk
from bestiary_whisper.model import Whisper
from bestiary_whisper.options import Options
from bestiary_whisper.phrases import Phrase, phrases
from bestiary_whisper.rules import Rules
from bestiary_whisper.tokens import SECONDS_PER_TIMESTAMP, tokens_of
from bestiary_whisper.window import Written, languages, write_window

_DYNAMIC = 8.0
"""Powers of ten below the loudest at which a spectrogram is cut off."""
_STRIDE = 2
"""Frames of the spectrogram in a step of 0.02 seconds."""
_SURE = 0.5
"""What was written at a higher temperature is not told to the next window."""


class Listener:
    """A model with the tokens of its checkpoint: a `bestiary.pipelines.transcription.Listener`."""

    def __init__(
        self, model: Whisper, tokenizer: Tokenizer, config: Mapping[str, Any], generation: Mapping[str, Any]
    ) -> None:
        """Raises ConfigError where configurations and tokenizer do not tell the tokens that are needed."""
        self.model, self.tokenizer = model, tokenizer
        self.tokens = tokens_of(tokenizer, config, generation, model.vocab_size)
        self._how = replace(WHISPER, n_mels=model.model.encoder.bands)
        self._frames = _STRIDE * model.model.encoder.positions
        self._desk = Desk(model, 1)

    def transcribe(
        self, samples: torch.Tensor, *, heard: Callable[[Segment], None] | None = None, **options: Any
    ) -> Transcript:
        """samples [N] at 16 kHz -> what is said; options are the fields of `Options`.

        `heard` is called with each segment once its window is written.
        """
        asked = options_of(Options, options)
        mel, frames = self._spectrogram(samples)
        desk = self._desk_for(asked.answers)
        desk.hear(self._listen(mel, 0))
        probable: dict[str, float] = {}
        language = None if asked.language is None else self._code(asked.language)
        if self.tokens.languages and language is None:
            probable = languages(desk, self._rules(asked))
            language = next(iter(probable))
        begin = self.tokens.prompt(language, asked.task, asked.timestamps)
        rules, before = self._rules(asked), self._before(asked)
        told = 0  # which of the earlier tokens the next window is told
        made: list[Segment] = []
        seek = 0
        while seek < frames:
            if seek:
                desk.hear(self._listen(mel, seek))
            length = min(self._frames, frames - seek)
            prompt = [*self._previous(before[told:]), *begin]
            written = write_window(desk, prompt, rules, asked, self._text)
            if written.silent(asked):
                seek += length
                continue
            found, steps = self._phrases(written, -(-length // _STRIDE), asked)
            for phrase in found:
                segment = self._segment(phrase, written, seek, frames)
                if segment.text.strip() and segment.end > segment.start:
                    before += phrase.tokens
                    made.append(segment)
                    if heard is not None:
                        heard(segment)
            if not asked.condition_on_previous_text or written.temperature > _SURE:
                told = len(before)
            seek += min(length, _STRIDE * steps)
        spoken = language or (None if self.tokens.languages else "en")
        text = "".join(segment.text for segment in made).strip()
        return Transcript(text, tuple(made), spoken, len(samples) / self.model.rate, probable)

    def detect_language(self, samples: torch.Tensor) -> dict[str, float]:
        """How probable each language is in the first window, the most probable first."""
        if not self.tokens.languages:
            raise RequestError("The model knows English only.", fix="choose one that is not named .en")
        mel, _ = self._spectrogram(samples[: self._frames * self._how.hop_length])
        self._desk.hear(self._listen(mel, 0))
        return languages(self._desk, self._rules(Options()))

    def _desk_for(self, answers: int) -> Desk:
        """The same again, as long as it has room for so many."""
        if self._desk.answers < answers:
            self._desk = Desk(self.model, answers)
        return self._desk

    def _phrases(self, written: Written, length: int, options: Options) -> tuple[list[Phrase], int]:
        if options.timestamps:
            return phrases(written.tokens, self.tokens.first_timestamp, length)
        return [Phrase(0, length, written.tokens)], length

    def _code(self, language: str) -> str:
        return self.tokens.code(language) if self.tokens.languages else language

    def _rules(self, options: Options) -> Rules:
        return Rules(self.tokens, self.model.device, timestamps=options.timestamps)

    def _spectrogram(self, samples: torch.Tensor) -> tuple[torch.Tensor, int]:
        """samples [N] -> [bands, T], of a window at least, and how many frames of it are of the sound."""
        padded = F.pad(samples, (0, max(0, self._frames * self._how.hop_length - len(samples))))
        mel = log_mel(padded, self._how)[:, :-1]
        mel = (torch.maximum(mel, mel.max() - _DYNAMIC) + 4) / 4
        return mel, max(1, len(samples) // self._how.hop_length)

    def _listen(self, mel: torch.Tensor, seek: int) -> list[Pair]:
        piece = mel[:, seek : seek + self._frames]
        piece = F.pad(piece, (0, self._frames - piece.shape[1]))
        return self.model.listen(self.model.encode(piece[None].to(self.model.device))[0])

    def _before(self, options: Options) -> list[int]:
        """The tokens of a prompt, as if they had been said."""
        if not options.prompt or not options.prompt.strip():
            return []
        text = " " + options.prompt.strip()
        return self.tokenizer.encode(text, add_special_tokens=False, allow_special=False)

    def _previous(self, before: Sequence[int]) -> list[int]:
        """What stands before the beginning: as much of the earlier text as half of the context holds."""
        if not before or self.tokens.previous is None:
            return []
        return [self.tokens.previous, *before[-(self.model.context_length // 2 - 1) :]]

    def _text(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode([token for token in tokens if token < self.tokens.end])

    def _segment(self, phrase: Phrase, written: Written, seek: int, frames: int) -> Segment:
        first, last = seek // _STRIDE, -(-frames // _STRIDE)
        start, end = (min(first + step, last) * SECONDS_PER_TIMESTAMP for step in (phrase.start, phrase.end))
        return Segment(
            round(start, 3),
            round(end, 3),
            self._text(phrase.tokens),
            phrase.tokens,
            written.avg_logprob,
            written.no_speech_prob,
            written.compression_ratio,
            written.temperature,
        )
