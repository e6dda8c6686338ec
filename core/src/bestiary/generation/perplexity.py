"""How well a model foretells a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean negative log-likelihood of the tokens that were foretold."""

    tokens: int
    nll: float
    """The sum over the tokens, in nats."""

    @property
    def value(self) -> float:
        return float(torch.tensor(self.nll / max(1, self.tokens), dtype=torch.float64).exp())


def perplexity(
    score: Callable[[Sequence[int]], torch.Tensor], tokens: Sequence[int], window: int, stride: int
) -> Iterator[Perplexity]:
    """After each window the perplexity so far: windows of `window` tokens, each `stride` further than the last.

    A token is counted once, with as much before it as its window has (Hugging Face's guide to perplexity of models of
    fixed length).  `score` gives logits [T, V] in float32.
    """
    nll, counted, done = 0.0, 0, 1  # the first token has nothing before it
    for start in range(0, len(tokens), stride):
        part = list(tokens[start : start + window])
        new = min(start + len(part) - done, len(part) - 1)  # a window's first token is never foretold
        if new <= 0:
            break
        logprobs = score(part).log_softmax(-1)[-new - 1 : -1]
        nll -= float(logprobs.gather(1, torch.tensor(part[-new:], device=logprobs.device)[:, None]).double().sum())
        counted, done = counted + new, start + len(part)
        yield Perplexity(counted, nll)


def answers_perplexity(
    score: Callable[[Sequence[int]], torch.Tensor], pairs: Iterable[tuple[Sequence[int], Sequence[int]]]
) -> Iterator[Perplexity]:
    """After each pair of a prompt and its answer, in tokens, the perplexity of all answers so far."""
    nll, counted = 0.0, 0
    for prompt, answer in pairs:
        logprobs = score([*prompt, *answer]).log_softmax(-1)[len(prompt) - 1 : -1]
        nll -= float(logprobs.gather(1, torch.tensor(list(answer), device=logprobs.device)[:, None]).double().sum())
        counted += len(answer)
        yield Perplexity(counted, nll)
