"""The tokens of one window: prompt in, one answer or several out, drawn at a temperature or the most probable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bestiary.errors import BestiaryError
from bestiary.generation.cache import SequenceCache, make_batch
from bestiary.generation.choosing import Row, choose_rows
from bestiary.generation.randomness import derived, key
from bestiary.generation.sampling import Sampling
from bestiary_whisper.model import Heard, Whisper
from bestiary_whisper.rules import Rules

_LEAST = -1e30
"""A logit that no token with it is chosen by, and that is finite all the same."""


@dataclass(frozen=True)
class Answer:
    """What was written about a window, without its prompt and its end."""

    tokens: tuple[int, ...]
    score: float
    """The sum of the log-probabilities of the tokens, its end's among them where it came to one."""
    ended: bool

    @property
    def mean(self) -> float:
        """The mean log-probability, of the end too."""
        return self.score / (len(self.tokens) + 1)


@dataclass(frozen=True)
class Begun:
    """A window whose prompt was read."""

    heard: Heard
    cache: SequenceCache
    logits: torch.Tensor
    """[V] in float32, of the first token to come."""
    at_start: torch.Tensor
    """[V] in float32, behind the token that begins a transcript: what the model thinks before it is told anything."""


def begin(model: Whisper, heard: Heard, prompt: Sequence[int], start: int) -> Begun:
    """Read a prompt; `start` is the place in it of the token that begins the transcript."""
    device = heard.layers[0][0].device
    cache = SequenceCache(len(model.specs))
    batch = make_batch([cache], [len(prompt)], device, all_outputs=True)
    hidden = model.hidden(torch.tensor(prompt, device=device), batch, heard)
    logits = model.head(hidden[[start, len(prompt) - 1]]).float()
    return Begun(heard, cache, logits[1], logits[0])


def forked(cache: SequenceCache) -> SequenceCache:
    """Another that remembers the same."""
    made = SequenceCache(len(cache.layers))
    for own, new in zip(cache.layers, made.layers, strict=True):
        if own.keys is not None and own.values is not None:
            new.keys, new.values, new.length = own.keys.clone(), own.values.clone(), own.length
    return made


def step(model: Whisper, heard: Heard, caches: Sequence[SequenceCache], tokens: Sequence[int]) -> torch.Tensor:
    """One more token of each sequence -> logits [N, V] in float32."""
    device = heard.layers[0][0].device
    batch = make_batch(caches, [1] * len(caches), device, all_outputs=True)
    logits: torch.Tensor = model(torch.tensor(tokens, device=device), batch, heard)
    return logits.float()


def write(
    model: Whisper, begun: Begun, rules: Rules, most: int, *, temperature: float = 0.0, count: int = 1, seed: int = 0
) -> list[Answer]:
    """`count` answers of at most `most` tokens.  Raises GenerationError where the model's logits are not finite."""
    end, sampling = rules.tokens.end, Sampling(temperature=temperature)
    written: list[list[int]] = [[] for _ in range(count)]
    scores, ended = [0.0] * count, [False] * count
    caches = [begun.cache, *(forked(begun.cache) for _ in range(count - 1))]
    seeds = [derived(seed, index) for index in range(count)]
    running = list(range(count))
    logits = begun.logits.repeat(count, 1)
    for place in range(most):
        with model.between():
            sequences = [written[index] for index in running]
            keys = [key(seeds[index], place) for index in running]
            chosen, gains = _choose(rules.apply(logits, sequences), sampling, sequences, keys)
        for index, token, gain in zip(running, chosen, gains, strict=True):
            scores[index] += gain
            ended[index] = token == end
            if token != end:
                written[index].append(token)
        running = [index for index in running if not ended[index]]
        if not running or place == most - 1:
            break
        last = [written[index][-1] for index in running]
        logits = step(model, begun.heard, [caches[index] for index in running], last)
    return [Answer(tuple(written[index]), scores[index], ended[index]) for index in range(count)]


def _choose(
    logits: torch.Tensor, sampling: Sampling, written: Sequence[Sequence[int]], keys: Sequence[int]
) -> tuple[list[int], list[float]]:
    """The next token of each row, and its log-probability among those that may come."""
    logits = logits.clamp_(min=_LEAST)
    rows = [
        Row(sampling, tokens, 0, each, frozenset(), frozenset()) for tokens, each in zip(written, keys, strict=True)
    ]
    chosen = []
    for token in choose_rows(logits, rows):
        if isinstance(token, BestiaryError):
            raise token
        chosen.append(token)
    gains = logits.gather(1, torch.tensor(chosen, device=logits.device)[:, None])[:, 0] - logits.logsumexp(1)
    return chosen, gains.tolist()
