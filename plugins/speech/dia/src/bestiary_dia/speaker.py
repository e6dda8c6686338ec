"""Dia and its codec put together: from texts to sounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bestiary.errors import BestiaryError, ConfigError, OptionError, RequestError, shown
from bestiary.generation.choosing import Row, choose_rows
from bestiary.generation.lanes import Lanes
from bestiary.generation.randomness import derived, key
from bestiary.generation.sampling import Sampling
from bestiary.generation.sources import Sources
from bestiary.identified import Identified
from bestiary.loading import generation_config
from bestiary.networks import Networks
from bestiary.records import Progress
from bestiary.speech.delay import Pattern, Rows
from bestiary.speech.model import Piece, Report, SpeechTerms
from bestiary.speech.request import SpeechRequest, Utterance
from bestiary_dac import settings as dac_settings
from bestiary_dia.guidance import allowed, guided
from bestiary_dia.model import Dia
from bestiary_dia.settings import Settings, read
from bestiary_dia.text import encode, with_voice

_USUAL: dict[str, Any] = {"temperature": 1.2, "top_p": 0.95, "guidance_scale": 3.0, "top_k": 45}
"""As the first code of the authors has it; generation_config.json says otherwise."""


def build(whole: Identified, parts: Networks) -> Speaker:
    """Raises ConfigError for a model and a codec that do not go together."""
    network, codec = (parts.require(name).network for name in ("model", "audio_tokenizer"))
    assert network is not None and codec is not None
    settings, dac = read(network.config), dac_settings.read(codec.config, codec.config.origin)
    if dac.n_codebooks != len(settings.pattern.delays) or dac.codebook_size < settings.pattern.eos:
        raise ConfigError(
            f"The codec has {dac.n_codebooks} codebooks of {dac.codebook_size}; the model writes "
            f"{len(settings.pattern.delays)} of {settings.pattern.eos}.",
            where=codec.repository.origin,
            fix="give the codec that belongs to the model: dac_model_id=...",
        )
    rate, hop = dac.sampling_rate, dac.hop_length
    room = settings.decoder.max_position_embeddings - settings.pattern.longest - 1
    if room < 1:
        raise ConfigError("The decoder has no room for a frame.", where=network.config.origin)
    stated = generation_config(network.repository)
    terms = _terms(stated, rate, rate / hop, room, network.repository.origin)
    return Speaker(parts, settings, terms)


def _terms(stated: Mapping[str, Any], rate: int, frame_rate: float, room: int, origin: str) -> SpeechTerms:
    values = {name: usual if stated.get(name) is None else stated[name] for name, usual in _USUAL.items()}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1000:
            raise ConfigError(f'"{name}" is {shown(value)}.', where=f"{origin}, generation_config.json")
    return SpeechTerms(
        rate=rate,
        frame_rate=frame_rate,
        max_tokens=room,
        temperature=values["temperature"] if stated.get("do_sample", True) else 0.0,
        top_p=min(1.0, values["top_p"]),
        guidance=values["guidance_scale"],
        cfg_filter_top_k=int(values["top_k"]) or None,
    )


@dataclass
class _Voice:
    """One text on its way."""

    number: int
    utterance: Utterance
    rows: Rows
    stream: Any
    """The codec's, which takes frames as they come."""
    read: int = 0
    """Rows that the decoder has read."""
    decoded: int = 0
    """Frames that are sound already."""


class Speaker:
    """A `bestiary.speech.model.SpeechModel`."""

    def __init__(self, parts: Networks, settings: Settings, terms: SpeechTerms) -> None:
        self.terms = terms
        self._parts, self._settings = parts, settings

    def check(self, request: SpeechRequest) -> None:
        for utterance in request.utterances:
            self._tokens(utterance)
            self._most(request, 0 if utterance.voice is None else self._frames_of(utterance))

    def speak(self, request: SpeechRequest, frames: int | None, report: Report | None) -> Iterator[Piece]:
        voices = [self._voice(number, each, request) for number, each in enumerate(request.utterances)]
        with self._parts.use("model") as model:
            lanes = self._lanes(model, voices, request)
        most = max(self._most(request, voice.rows.length - 1) for voice in voices)
        running = voices
        while running:
            with self._parts.use("model") as model:
                _step(model, self._settings.pattern, lanes, running, request)
            if report is not None:
                report(Progress("speak", min(most, max(voice.rows.whole for voice in voices)), most))
            for voice in running:
                if voice.rows.over or (frames is not None and voice.rows.whole - voice.decoded >= frames):
                    yield self._piece(voice)
            running = [voice for voice in running if not voice.rows.over]
        if report is not None:
            report(Progress("speak", most, most))

    def _piece(self, voice: _Voice) -> Piece:
        start, stop = voice.decoded, voice.rows.whole
        voice.decoded = stop
        codes, made = voice.rows.frames(start, stop), []
        with self._parts.use("audio_tokenizer"):
            if stop > start:
                made.append(voice.stream.push(self._parts.placed("audio_tokenizer", codes[None])))
            if voice.rows.over and stop:
                made.append(voice.stream.finish())
        samples = torch.cat([each[0, 0].cpu() for each in made]) if made else torch.empty(0)
        over = voice.rows.over
        return Piece(voice.number, samples, codes, over, over and voice.rows.finished)

    def _voice(self, number: int, utterance: Utterance, request: SpeechRequest) -> _Voice:
        before = None
        with self._parts.use("audio_tokenizer") as codec:
            stream = codec.stream()
            if utterance.voice is not None:
                samples = self._parts.placed("audio_tokenizer", utterance.voice.samples[None])
                before = codec.encode(samples)[0].cpu()
        most = self._most(request, 0 if before is None else before.shape[1])
        return _Voice(number, utterance, Rows(self._settings.pattern, most, before), stream)

    def _lanes(self, model: Dia, voices: Sequence[_Voice], request: SpeechRequest) -> Lanes:
        """One for each text, and with guidance one more that looks at as much of nothing."""
        each, texts = request.lanes, [self._tokens(voice.utterance) for voice in voices]
        sources = Sources(model, [len(text) for text in texts for _ in range(each)])
        for number, text in enumerate(texts):
            tokens = torch.tensor([text, [0] * len(text)][:each], device=model.device)
            for lane, layers in enumerate(model.listen(tokens), number * each):
                sources.fill(lane, layers)
        return Lanes(model, [voice.rows.most for voice in voices for _ in range(each)], sources)

    def _tokens(self, utterance: Utterance) -> list[int]:
        text = with_voice(utterance.voice_text, utterance.text)
        return encode(text, self._settings.encoder.max_position_embeddings)

    def _frames_of(self, utterance: Utterance) -> int:
        assert utterance.voice is not None
        return -(-utterance.voice.length // round(self.terms.rate / self.terms.frame_rate))

    def _most(self, request: SpeechRequest, before: int) -> int:
        """Frames that may be made after so many."""
        room = self.terms.max_tokens - before
        if room < 1:
            raise RequestError(
                f"The audio_prompt has {before} frames; the model has room for {self.terms.max_tokens}.",
                fix="give five to ten seconds of it",
            )
        if request.max_tokens is not None and request.max_tokens > room:
            raise OptionError(f"max_tokens is {request.max_tokens}; the model has room for {room} frames.")
        return request.max_tokens or room


def _step(model: Dia, pattern: Pattern, lanes: Lanes, voices: Sequence[_Voice], request: SpeechRequest) -> None:
    """One more row of each text."""
    each = request.lanes
    new = [voice.rows.rows(voice.read) for voice in voices for _ in range(each)]
    hidden = lanes.run([voice.number * each + lane for voice in voices for lane in range(each)], new)
    logits = model.head(hidden)
    with model.operations.between():
        scores = logits.float().view(len(voices), each, *logits.shape[1:])
        chosen = guided(scores, request.guidance, request.cfg_filter_top_k) if request.guided else scores[:, 0]
        early = torch.tensor([voice.rows.written < request.min_tokens for voice in voices], device=chosen.device)
        rows = _choose(allowed(chosen, pattern.eos, early), voices, request)
    for voice, row in zip(voices, rows, strict=True):
        voice.read = voice.rows.length
        voice.rows.put(row)


def _choose(scores: torch.Tensor, voices: Sequence[_Voice], request: SpeechRequest) -> list[list[int]]:
    """The codes [N, Q] of the next rows, by scores [N, Q, V]."""
    sampling, books = Sampling(temperature=request.temperature, top_p=request.top_p), scores.shape[1]
    rows = [
        Row(sampling, (), 0, key(derived(voice.utterance.seed, book), voice.rows.written), frozenset(), frozenset())
        for voice in voices
        for book in range(books)
    ]
    made: list[int] = []
    for code in choose_rows(scores.flatten(0, 1), rows):
        if isinstance(code, BestiaryError):
            raise code
        made.append(code)
    return [made[start : start + books] for start in range(0, len(made), books)]
