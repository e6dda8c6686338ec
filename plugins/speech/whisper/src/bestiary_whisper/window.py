"""One window written down: again at a higher temperature where the answer repeats itself or is improbable."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from bestiary_whisper.beam import search
from bestiary_whisper.decoding import Answer, Begun, Desk, write
from bestiary_whisper.options import Options
from bestiary_whisper.rules import Rules


@dataclass(frozen=True)
class Written:
    """What was made of a window; the numbers are those of `bestiary.audio.transcript.Segment`."""

    tokens: tuple[int, ...]
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float

    def silent(self, options: Options) -> bool:
        """Whether nobody spoke: the model says so, and is not sure of what it wrote."""
        limit = options.no_speech_threshold
        if limit is None or self.no_speech_prob <= limit:
            return False
        return options.logprob_threshold is None or self.avg_logprob < options.logprob_threshold


def write_window(
    desk: Desk,
    prompt: Sequence[int],
    rules: Rules,
    options: Options,
    text_of: Callable[[Sequence[int]], str],
) -> Written:
    """Of the window that the desk heard: the first answer, by rising temperature, that is good enough, else the last.

    Section 4.5 of the paper.
    """
    tokens = rules.tokens
    begun = desk.begin(prompt, list(prompt).index(tokens.start))
    silence = 0.0
    if tokens.no_speech is not None:
        silence = float(begun.at_start.softmax(0)[tokens.no_speech])
    context = desk.model.context_length
    most = max(1, min(context // 2, context - len(prompt)))
    for temperature in options.temperatures:
        answer = _answer(begun, rules, most, temperature, options)
        ratio = compression_ratio(text_of(answer.tokens))
        made = Written(answer.tokens, answer.mean, silence, ratio, temperature)
        if made.silent(options) or _good(made, options):
            break
    return made


def _answer(begun: Begun, rules: Rules, most: int, temperature: float, options: Options) -> Answer:
    if temperature == 0 and (options.beam_size or 1) > 1:
        return search(begun, rules, most, options.beam_size or 1, options.length_penalty)
    count = options.best_of if temperature > 0 else 1
    answers = write(begun, rules, most, temperature=temperature, count=count, seed=options.seed)
    return max(answers, key=lambda answer: answer.mean)


def _good(made: Written, options: Options) -> bool:
    most, least = options.compression_ratio_threshold, options.logprob_threshold
    return (most is None or made.compression_ratio <= most) and (least is None or made.avg_logprob >= least)


def compression_ratio(text: str) -> float:
    """Bytes of a text in UTF-8, over those that zlib makes of them."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def languages(desk: Desk, rules: Rules) -> dict[str, float]:
    """How probable each language is, the most probable first."""
    tokens = rules.tokens
    codes, places = list(tokens.languages), list(tokens.languages.values())
    logits = desk.begin([tokens.start], 0).logits
    found = logits[torch.tensor(places, device=logits.device)].softmax(0).tolist()
    return dict(sorted(zip(codes, found, strict=True), key=lambda each: -each[1]))
