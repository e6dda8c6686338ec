"""What is asked of a speech pipeline, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bestiary.asking import check_number, check_whole, options_of, seeds_of
from bestiary.audio.limits import AudioLimits
from bestiary.audio.opening import open_audio
from bestiary.audio.waveform import Waveform
from bestiary.errors import OptionError, RequestError, shown
from bestiary.speech.model import SpeechTerms

MOST_TEXTS = 256
MOST_CHARACTERS = 50_000
MOST_TOKENS = 1 << 20


@dataclass(frozen=True)
class SpeechOptions:
    """How texts are spoken; None: as the model's authors have it.  Raises OptionError for a value that cannot be."""

    max_tokens: int | None = None
    """Frames of the codec at most, `SpeechTerms.frame_rate` of them a second; None: all that the model has room for."""
    min_tokens: int = 0
    """The end is held back until so many frames are made."""
    temperature: float | None = None
    """0 takes the most probable code."""
    top_p: float | None = None
    guidance: float | None = None
    """How much the speech keeps to the text, for models that can do without it: 1 or less is not at all."""
    cfg_filter_top_k: int | None = None
    """With guidance: only this many codes, the best by it, are chosen from; 0: all."""
    seed: int | Sequence[int] | None = None
    """The same seed gives the same sound, whatever is made beside it.  With one seed the texts of a request have it and
    the numbers after it; None: one that nobody knows before, told in `Speech.seed`."""
    speed: float = 1.0
    """2 is twice as fast; the pitch stays."""
    audio_prompt: Any = None
    """A voice to go on with: a sound as `open_audio` takes it, or a list of one, or None, for each text."""
    audio_prompt_text: str | Sequence[str | None] | None = None
    """What is said in it; models that were trained so speak better for it."""

    def __post_init__(self) -> None:
        check_whole("max_tokens", self.max_tokens, 1, MOST_TOKENS, optional=True)
        check_whole("min_tokens", self.min_tokens, 0, MOST_TOKENS)
        check_whole("cfg_filter_top_k", self.cfg_filter_top_k, 0, MOST_TOKENS, optional=True)
        for name, most in (("temperature", 100.0), ("top_p", 1.0), ("guidance", 100.0)):
            check_number(name, getattr(self, name), 0.0, most, optional=True)
        check_number("speed", self.speed, 0.25, 4.0)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise OptionError(f"min_tokens is {self.min_tokens}, and max_tokens {self.max_tokens}.")
        if self.audio_prompt_text is not None and self.audio_prompt is None:
            raise OptionError(
                "There is an audio_prompt_text and no audio_prompt.", fix="give the sound in which it is said"
            )


@dataclass(frozen=True)
class Utterance:
    """One text of a request."""

    text: str
    seed: int
    voice: Waveform | None = None
    """One channel, at the rate of the model."""
    voice_text: str = ""


@dataclass(frozen=True)
class SpeechRequest:
    """Texts and options, with the model's own values where nothing was said."""

    utterances: tuple[Utterance, ...]
    max_tokens: int | None
    min_tokens: int
    temperature: float
    top_p: float
    guidance: float
    cfg_filter_top_k: int | None
    speed: float

    @property
    def guided(self) -> bool:
        """Whether each step is computed a second time, without the text."""
        return self.guidance > 1.0

    @property
    def lanes(self) -> int:
        """Sequences that are computed for each text."""
        return 2 if self.guided else 1


def make_request(
    text: str | Sequence[str], given: Mapping[str, Any], terms: SpeechTerms, limits: AudioLimits
) -> SpeechRequest:
    """Raises OptionError for options, RequestError for texts, and MediaError for a voice that cannot be taken."""
    options = options_of(SpeechOptions, given)
    texts = _texts(text)
    several = not isinstance(text, str)
    said = _for_each("audio_prompt_text", options.audio_prompt_text, len(texts), several)
    for each in said:
        if each is not None and not isinstance(each, str):
            raise OptionError(f"audio_prompt_text is {shown(each)}; a text is due.")
    voices = _voices(_for_each("audio_prompt", options.audio_prompt, len(texts), several), terms.rate, limits)
    seeds = seeds_of(options.seed, len(texts), "texts")
    top = terms.cfg_filter_top_k if options.cfg_filter_top_k is None else options.cfg_filter_top_k
    return SpeechRequest(
        tuple(
            Utterance(each, seed, voice, words or "")
            for each, seed, voice, words in zip(texts, seeds, voices, said, strict=True)
        ),
        options.max_tokens,
        options.min_tokens,
        terms.temperature if options.temperature is None else float(options.temperature),
        terms.top_p if options.top_p is None else float(options.top_p),
        terms.guidance if options.guidance is None else float(options.guidance),
        top or None,
        float(options.speed),
    )


def _texts(text: Any) -> list[str]:
    given = [text] if isinstance(text, str) else list(text) if isinstance(text, Sequence) else None
    if given is None or not all(isinstance(each, str) for each in given):
        raise RequestError(f"The text is {shown(text)}; a text or a list of texts is due.")
    if not 1 <= len(given) <= MOST_TEXTS:
        raise RequestError(f"{len(given)} texts came; 1 to {MOST_TEXTS} are spoken at once.")
    for each in given:
        if not each.strip():
            raise RequestError("The text is empty.")
        if len(each) > MOST_CHARACTERS:
            raise RequestError(f"A text has {len(each)} characters; {MOST_CHARACTERS} are allowed.", fix="split it")
    return given


def _for_each(name: str, given: Any, count: int, several: bool) -> list[Any]:
    if not isinstance(given, list | tuple):
        return [given] * count
    if not several or len(given) != count:
        raise OptionError(
            f"{name} has {len(given)} members for {count} texts.", fix="give one for each of several texts"
        )
    return list(given)


def _voices(given: Sequence[Any], rate: int, limits: AudioLimits) -> list[Waveform | None]:
    """Opened once where it is the same for all."""
    opened: dict[int, Waveform] = {}
    for source in given:
        if source is not None and id(source) not in opened:
            voice = open_audio(source, limits).mono().resampled(rate)
            if not voice.length:
                raise RequestError("The audio_prompt has no samples.")
            opened[id(source)] = voice
    return [None if source is None else opened[id(source)] for source in given]
