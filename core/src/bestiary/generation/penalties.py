"""What changes logits before temperature: DRY, three penalties, bias, a user's own processors, in this order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from bestiary.generation.sampling import Sampling

Processor = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
"""(logits [V] in float32, all tokens so far) -> logits [V]."""


def penalised(
    logits: torch.Tensor,
    sampling: Sampling,
    tokens: Sequence[int],
    prompt_length: int,
    *,
    breakers: frozenset[int] = frozenset(),
    ends: frozenset[int] = frozenset(),
) -> torch.Tensor:
    """logits [V] in float32, as `sampling` changes them; the same tensor where it changes nothing.

    `tokens` are all so far, the prompt among them; `breakers` the tokens over which DRY does not look; `ends` those
    that are held back until `min_tokens` are made.
    """
    generated = tokens[prompt_length:]
    changed = logits
    if sampling.dry_multiplier:
        changed = _dry(changed.clone(), sampling, tokens, breakers)
    if generated and (sampling.frequency_penalty or sampling.presence_penalty):
        seen, counts = torch.unique(torch.tensor(generated), return_counts=True)
        changed = changed.clone()
        changed[seen] -= sampling.frequency_penalty * counts + sampling.presence_penalty
    if sampling.repetition_penalty != 1.0:
        seen = torch.unique(torch.tensor(tokens))
        changed = changed.clone()
        values = changed[seen]
        changed[seen] = torch.where(
            values > 0, values / sampling.repetition_penalty, values * sampling.repetition_penalty
        )
    if sampling.logit_bias:
        changed = changed.clone()
        known = {token: bias for token, bias in sampling.logit_bias.items() if token < len(changed)}
        changed[list(known)] += torch.tensor(list(known.values()), dtype=changed.dtype)
    for processor in sampling.processors:
        changed = processor(changed, tokens)
    if len(generated) < sampling.min_tokens and ends:
        changed = changed.clone()
        changed[list(ends)] = float("-inf")
    return changed


def _dry(logits: torch.Tensor, sampling: Sampling, tokens: Sequence[int], breakers: frozenset[int]) -> torch.Tensor:
    """Penalise tokens that would make a repetition longer (DRY, p-e-w 2024, text-generation-webui pull request 5677).

    A token that followed an earlier copy of the last n tokens loses multiplier * base ** (n - allowed length), for the
    longest such n of at least the allowed length.
    """
    longest: dict[int, int] = {}
    for place, length in enumerate(_repeated(tokens, breakers)):
        if length >= sampling.dry_allowed_length:
            following = tokens[len(tokens) - place]
            longest[following] = max(length, longest.get(following, 0))
    for token, length in longest.items():
        # Beyond this exponent the penalty is larger than any logit; more would only overflow.
        excess = min(length - sampling.dry_allowed_length, 60)
        logits[token] -= sampling.dry_multiplier * sampling.dry_base**excess
    return logits


def _repeated(tokens: Sequence[int], breakers: frozenset[int]) -> list[int]:
    """By the number of tokens left off at the end (0 has none): how many of the last tokens stand there too.

    The Z function of the reversed tokens (Gusfield 1997), up to the last breaker: linear in the length.
    """
    back = list(reversed(tokens))
    limit = next((place for place, token in enumerate(back) if token in breakers), len(back))
    lengths = [0] * len(back)
    left = right = 0
    for place in range(1, len(back)):
        length = min(right - place, lengths[place - left]) if place < right else 0
        while length < limit and place + length < len(back) and back[length] == back[place + length]:
            length += 1
        lengths[place] = length
        if place + length > right:
            left, right = place, place + length
    return lengths
