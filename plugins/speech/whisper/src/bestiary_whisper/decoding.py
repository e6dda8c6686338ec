"""The tokens of one window: prompt in, one answer or several out, drawn at a temperature or the most probable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bestiary.errors import BestiaryError
from bestiary.generation.choosing import Row, choose_rows
from bestiary.generation.lanes import Lanes
from bestiary.generation.randomness import derived, key
from bestiary.generation.sampling import Sampling
from bestiary.generation.sources import Pair, Sources
from bestiary_whisper.model import Whisper
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


class Desk:
    """Where a window is written about: what was heard of it, a prompt, and room for several answers.

    It serves one window after another; what was recorded of its steps stays good.
    """

    def __init__(self, model: Whisper, answers: int) -> None:
        self.model, self.answers = model, answers
        self._sources = Sources(model, [model.model.encoder.positions])
        lanes = 1 + answers  # the first has the prompt
        self._lanes = Lanes(model, [model.context_length] * lanes, self._sources, [0] * lanes)

    def hear(self, layers: Sequence[Pair]) -> None:
        """What was heard of the next window, as `Whisper.listen` gives it."""
        self._sources.fill(0, layers)

    def begin(self, prompt: Sequence[int], start: int) -> Begun:
        """Read a prompt; `start` is the place in it of the token that begins the transcript."""
        self._lanes.clear(0)
        hidden = self._lanes.run([0], [torch.tensor(prompt)], every=True)
        logits = self.model.head(hidden[[start, len(prompt) - 1]]).float()
        return Begun(self, logits[1], logits[0])

    def open(self, count: int) -> None:
        """So many answers, of which the first is 0, begin after the prompt."""
        for answer in range(count):
            self._lanes.copy(0, 1 + answer)

    def copy(self, source: int, target: int) -> None:
        """One answer becomes what another is."""
        self._lanes.copy(1 + source, 1 + target)

    def step(self, answers: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """One more token of some answers -> logits [N, V] in float32."""
        hidden = self._lanes.run([1 + answer for answer in answers], [torch.tensor([token]) for token in tokens])
        return self.model.head(hidden).float()


@dataclass(frozen=True)
class Begun:
    """A window whose prompt was read."""

    desk: Desk
    logits: torch.Tensor
    """[V] in float32, of the first token to come."""
    at_start: torch.Tensor
    """[V] in float32, behind the token that begins a transcript: what the model thinks before it is told anything."""


def write(
    begun: Begun, rules: Rules, most: int, *, temperature: float = 0.0, count: int = 1, seed: int = 0
) -> list[Answer]:
    """`count` answers of at most `most` tokens.  Raises GenerationError where the model's logits are not finite."""
    end, sampling = rules.tokens.end, Sampling(temperature=temperature)
    written: list[list[int]] = [[] for _ in range(count)]
    scores, ended = [0.0] * count, [False] * count
    begun.desk.open(count)
    seeds = [derived(seed, index) for index in range(count)]
    running = list(range(count))
    logits = begun.logits.repeat(count, 1)
    for place in range(most):
        with begun.desk.model.operations.between():
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
        logits = begun.desk.step(running, [written[index][-1] for index in running])
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
    places = torch.tensor([[token] for token in chosen], device=logits.device)
    return chosen, [gain for (gain,) in logits.log_softmax(1).gather(1, places).tolist()]
