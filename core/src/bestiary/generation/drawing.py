"""One random token of each row, after temperature and filters.

Filters add probabilities as whole numbers: exp of a scaled logit in float32, times a power of two.  Their sums are
exact, in any order and on any device.  Then the tokens that are left race: each has an exponential random number, which
it divides by its probability, and the least quotient wins (the Gumbel-max trick: Maddison et al. 2014, "A* sampling").
Near distributions mostly give one token for one key, which drafts live on: p and q agree with the probability
sum_i 1 / sum_j max(p_j / p_i, q_j / q_i) (Daliri, Musco and Suresh 2024, arXiv 2408.07978).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from bestiary.generation.randomness import UNIT, drawn
from bestiary.generation.sampling import Sampling
from bestiary.generation.selection import Selection

UNSETTLED = -1
"""In place of a token: the most probable ones that were looked at do not decide it."""
_NEAR = 1e-9
"""Scores that differ by less are computed again, one by one and by one formula for all devices: the logarithms of a
library may differ in the last bit, from device to device and from place to place in a vector."""


def draw(
    logits: torch.Tensor,
    maxima: torch.Tensor,
    samplings: Sequence[Sampling],
    keys: Sequence[int],
    most: int,
    by: Selection,
) -> torch.Tensor:
    """A token [N] of each row of logits [N, V], or UNSETTLED where the `most` largest logits do not decide; V do.

    The order is: temperature, softmax, top_k, top_p (of the whole probability, also after top_k), min_p, equal tokens
    the lower first; then the race by the row's key.  `maxima` [N] are the rows' largest logits.
    """
    most = min(most, logits.shape[-1])
    # A CPU looks at all tokens of one row at a time, and at the most probable ones of a part, within its cache; another
    # device may look at all tokens of a part at once, in so much memory.
    step = _at_once(most, 1 << 18) if logits.device.type == "cpu" else _at_once(logits.shape[-1], 1 << 24)
    return torch.cat(
        [
            _draw(logits[part], maxima[part, None], samplings[part], keys[part], most, by)
            for part in (slice(start, start + step) for start in range(0, len(logits), step))
        ]
    )


def log_totals(logits: torch.Tensor, maxima: torch.Tensor, by: Selection) -> torch.Tensor:
    """log of the sum [N] of exp(logit - maximum) over each row, in float64."""
    ones = torch.ones(len(logits), 1, device=logits.device)
    return _totals(logits, maxima[:, None], ones, by)[:, 0].double().div(_one(logits)).log()


def _draw(
    logits: torch.Tensor,
    maxima: torch.Tensor,
    samplings: Sequence[Sampling],
    keys: Sequence[int],
    most: int,
    by: Selection,
) -> torch.Tensor:
    vocabulary = logits.shape[-1]
    temperatures = _column([sampling.temperature for sampling in samplings], torch.float32, logits)
    own = _column(keys, torch.int64, logits)
    values, tokens = by.first(logits, most)
    scaled = _scaled(values, maxima, temperatures)
    filtered = [_filters(sampling, vocabulary) for sampling in samplings]
    known = torch.ones_like(maxima, dtype=torch.bool)
    if any(filtered):
        stay = _stay(logits, maxima, temperatures, samplings, scaled, by)
        known = (stay < most) | (stay == vocabulary)
        scaled = scaled.masked_fill(torch.arange(most, device=logits.device) >= stay, -torch.inf)
    scores = by.scores(scaled, own, tokens)
    if most < vocabulary and not all(filtered):
        # A less probable token wins only below the limit, which is 0 where a filter ends before; what is above its
        # number, -log(1 - number), is then below too.
        limits = (scaled[:, -1:] - scores.amax(-1, keepdim=True) + 1e-6).exp()
        others = by.below(keys, limits[:, 0], vocabulary)
        further = by.scores(_scaled(logits.gather(1, others), maxima, temperatures), own, others)
        scores = torch.cat([scores, further.masked_fill(limits == 0.0, -torch.inf)], -1)
        tokens = torch.cat([tokens, others], -1)
    found = torch.where(known[:, 0], _winners(scores, tokens), UNSETTLED)
    if most == vocabulary:
        for row in (found == UNSETTLED).nonzero()[:, 0].tolist():
            found[row] = _nearest(scaled[row], scores[row], own[row], tokens[row])
    return found


# Filters


def _filters(sampling: Sampling, vocabulary: int) -> bool:
    return 0 < (sampling.top_k or 0) < vocabulary or sampling.top_p < 1.0 or sampling.min_p > 0.0


def _stay(
    logits: torch.Tensor,
    maxima: torch.Tensor,
    temperatures: torch.Tensor,
    samplings: Sequence[Sampling],
    scaled: torch.Tensor,
    by: Selection,
) -> torch.Tensor:
    """How many tokens [N, 1] of each row the filters leave, by its largest logits `scaled` [N, M].

    A filter that spares these says no more than M; a row without filters keeps V.
    """
    vocabulary, most = logits.shape[-1], scaled.shape[-1]
    stay = _column([min(sampling.top_k or vocabulary, vocabulary) for sampling in samplings], torch.int64, logits)
    if not any(sampling.top_p < 1.0 or sampling.min_p > 0.0 for sampling in samplings):
        return stay
    weights = _weights(by.exp(scaled), _one(logits))
    if any(sampling.top_p < 1.0 for sampling in samplings):
        # A token stays while those before it have not reached top_p, so that at least one stays.
        top_p = _column([sampling.top_p for sampling in samplings], torch.float64, logits)
        sums = weights.cumsum(-1)
        total = sums[:, -1:] if most == vocabulary else _totals(logits, maxima, temperatures, by)
        reach = torch.searchsorted(sums, (top_p * total).ceil().to(torch.int64)).add(1).clamp(max=most)
        stay = torch.minimum(stay, torch.where(top_p < 1.0, reach, vocabulary))
    if any(sampling.min_p > 0.0 for sampling in samplings):
        min_p = _column([sampling.min_p for sampling in samplings], torch.float64, logits)
        likely = (weights >= (min_p * _one(logits)).ceil().to(torch.int64)).sum(-1, keepdim=True).clamp(min=1)
        stay = torch.minimum(stay, torch.where(min_p > 0.0, likely, vocabulary))
    return stay


def _totals(logits: torch.Tensor, maxima: torch.Tensor, temperatures: torch.Tensor, by: Selection) -> torch.Tensor:
    """The sum [N, 1] of the weights of each row."""
    step = _at_once(logits.shape[-1], 1 << 18 if logits.device.type == "cpu" else 1 << 26)
    made = []
    for start in range(0, len(logits), step):
        part = slice(start, start + step)
        weights = _weights(by.exp(_scaled(logits[part], maxima[part], temperatures[part])), _one(logits))
        made.append(weights.sum(-1, keepdim=True))
    return torch.cat(made)


def _weights(relative: torch.Tensor, one: int) -> torch.Tensor:
    return relative.mul_(float(one)).to(torch.int64)


def _one(logits: torch.Tensor) -> int:
    """The weight of a row's largest logit: a power of two, by which the sum of a row stays below 2 ** 62."""
    return 1 << 62 - logits.shape[-1].bit_length()


# The race


def _winners(scores: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The token [N] of the highest score [N, M]; UNSETTLED where that of another is too near."""
    best, place = scores.max(-1, keepdim=True)
    found = tokens.gather(1, place)
    near = ((scores >= best - _NEAR) & (tokens != found)).any(-1)
    return torch.where(near, UNSETTLED, found[:, 0])


def _nearest(scaled: torch.Tensor, scores: torch.Tensor, key: torch.Tensor, tokens: torch.Tensor) -> int:
    """Of one row's tokens [V] near the highest score the one that has it; of equal ones the lowest."""
    near = scores >= scores.max() - _NEAR
    rivals = zip(scaled[near].tolist(), drawn(key, tokens[near]).tolist(), tokens[near].tolist(), strict=True)
    exact = [(value - math.log(-math.log1p(-(number + 0.5) * UNIT)), -token) for value, number, token in rivals]
    return -int(max(exact)[1])


# Of each row


def _scaled(values: torch.Tensor, maxima: torch.Tensor, temperatures: torch.Tensor) -> torch.Tensor:
    # Less the largest, so that no quotient overflows.
    return (values - maxima).div_(temperatures)


def _column(values: Sequence[Any], dtype: torch.dtype, beside: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=beside.device)[:, None]


def _at_once(width: int, room: int) -> int:
    """How many rows to take at a time."""
    return max(1, room // width)
