"""One random token of each row, after temperature and filters.

Probabilities are whole numbers: exp of a scaled logit in float32, times a power of two.  Their sums are exact, in any
order and on any device, and so what a row gives never depends on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bestiary.generation.sampling import Sampling
from bestiary.generation.selection import Selection

UNSETTLED = -1
"""In place of a token: the most probable ones that were looked at do not decide it."""


def draw(
    logits: torch.Tensor,
    maxima: torch.Tensor,
    samplings: Sequence[Sampling],
    uniforms: Sequence[float],
    most: int,
    by: Selection,
) -> torch.Tensor:
    """A token [N] of each row of logits [N, V], or UNSETTLED where the `most` largest logits do not decide; V do.

    The order is: temperature, softmax, top_k, top_p (of the whole probability, also after top_k), min_p; then the row's
    uniform number picks from what is left, in order of probability, equal ones by token.  So near distributions mostly
    give one token for one number (quantile coupling), which drafts live on.  `maxima` [N] are the rows' largest logits.
    """
    most = min(most, logits.shape[-1])
    step = _at_once(logits, most)
    return torch.cat(
        [
            _draw(logits[part], maxima[part, None], samplings[part], uniforms[part], most, by)
            for part in (slice(start, start + step) for start in range(0, len(logits), step))
        ]
    )


def log_totals(logits: torch.Tensor, maxima: torch.Tensor) -> torch.Tensor:
    """log of the sum [N] of exp(logit - maximum) over each row, in float64."""
    ones = torch.ones(len(logits), 1, device=logits.device)
    return _totals(logits, maxima[:, None], ones)[:, 0].double().div(_one(logits)).log()


def _draw(
    logits: torch.Tensor,
    maxima: torch.Tensor,
    samplings: Sequence[Sampling],
    uniforms: Sequence[float],
    most: int,
    by: Selection,
) -> torch.Tensor:
    vocabulary = logits.shape[-1]

    def column(values: Sequence[Any], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=logits.device)[:, None]

    temperatures = column([sampling.temperature for sampling in samplings], torch.float32)
    values = by.largest(logits, most)
    weights = _weights(values, maxima, temperatures, _one(logits))
    sums = weights.cumsum(-1)
    total = sums[:, -1:]
    top_k = [min(sampling.top_k or vocabulary, vocabulary) for sampling in samplings]
    unfiltered = (not sampling.min_p and few == vocabulary for sampling, few in zip(samplings, top_k, strict=True))
    if most < vocabulary and (any(unfiltered) or any(sampling.top_p < 1.0 for sampling in samplings)):
        total = _totals(logits, maxima, temperatures)

    # How many tokens stay: a filter that spares the `most` first ones says no more than that.
    stay = column(top_k, torch.int64)
    if any(sampling.top_p < 1.0 for sampling in samplings):
        # A token stays while those before it have not reached top_p, so that at least one stays.
        top_p = column([sampling.top_p for sampling in samplings], torch.float64)
        reach = torch.searchsorted(sums, (top_p * total).ceil().to(torch.int64)).add(1).clamp(max=most)
        stay = torch.minimum(stay, torch.where(top_p < 1.0, reach, vocabulary))
    if any(sampling.min_p for sampling in samplings):
        min_p = column([sampling.min_p for sampling in samplings], torch.float64)
        likely = (weights >= (min_p * _one(logits)).ceil().to(torch.int64)).sum(-1, keepdim=True).clamp(min=1)
        stay = torch.minimum(stay, torch.where(min_p > 0.0, likely, vocabulary))
    known = stay < most
    mass = torch.where(known, sums.gather(1, stay.clamp(max=most) - 1), total)
    known |= stay == vocabulary

    target = (column(uniforms, torch.float64) * mass).floor().to(torch.int64)
    place = torch.searchsorted(sums, torch.minimum(target, mass - 1), right=True)
    known &= place < most
    value = values.gather(1, place.clamp(max=most - 1))
    among_equal = place - torch.searchsorted(-values, -value)
    tokens = by.nth(logits, value[:, 0], among_equal[:, 0])
    return torch.where(known[:, 0], tokens, UNSETTLED)


def _totals(logits: torch.Tensor, maxima: torch.Tensor, temperatures: torch.Tensor) -> torch.Tensor:
    """The sum [N, 1] of the weights of each row."""
    step = _at_once(logits, logits.shape[-1])
    made = []
    for start in range(0, len(logits), step):
        part = slice(start, start + step)
        weights = _weights(logits[part], maxima[part], temperatures[part], _one(logits))
        made.append(weights.sum(-1, keepdim=True))
    return torch.cat(made)


def _weights(values: torch.Tensor, maxima: torch.Tensor, temperatures: torch.Tensor, one: int) -> torch.Tensor:
    # Less the largest, so that no quotient overflows.
    return (values - maxima).div_(temperatures).exp_().mul_(float(one)).to(torch.int64)


def _one(logits: torch.Tensor) -> int:
    """The weight of a row's largest logit: a power of two, by which the sum of a row stays below 2 ** 62."""
    return 1 << 62 - logits.shape[-1].bit_length()


def _at_once(logits: torch.Tensor, width: int) -> int:
    """How many rows to take at a time: a CPU works within its cache, another device spares its memory."""
    return max(1, (1 << 18 if logits.device.type == "cpu" else 1 << 26) // width)
