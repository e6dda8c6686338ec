"""The next token of every row of a step at once.

Read in this order: randomness (the numbers that a choice is made by), penalties (what changes logits), drawing (what
wins by these numbers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from bestiary.errors import BestiaryError, GenerationError
from bestiary.generation.constraints.masks import Mask
from bestiary.generation.drawing import UNSETTLED, draw, log_totals
from bestiary.generation.history import History
from bestiary.generation.penalties import changes, penalise
from bestiary.generation.sampling import Sampling
from bestiary.generation.selection import Selection, selection_on


@dataclass(frozen=True)
class Row:
    """What one row of logits is chosen by."""

    sampling: Sampling
    tokens: Sequence[int]
    """All so far, the prompt and drafts among them."""
    prompt_length: int
    key: int
    """What is drawn by (see `randomness.key`)."""
    breakers: frozenset[int]
    """Tokens over which DRY does not look."""
    ends: frozenset[int]
    """Tokens that are held back until `min_tokens` are made."""
    mask: Mask | None = None
    """The tokens that a grammar allows."""
    drafts: int = 0
    """How many of the last tokens are guesses."""
    history: History | None = None
    """Of this sequence; without it penalties look at all tokens again."""


def choose_rows(logits: torch.Tensor, rows: Sequence[Row]) -> list[int | BestiaryError]:
    """The next token of each row of logits [N, V] in float32, or the error that is its own.

    The order is: DRY, frequency, presence and repetition penalty, bias, processors, `min_tokens`, grammar; then the
    most probable token (of equal ones the lowest), or a draw after temperature, top_k, top_p and min_p.  A row gives
    the same, bit for bit, alone and among any others.  GenerationError where the model's logits are not all finite,
    where no token is left, and for whatever a processor of the request's own raises.
    """
    return _chosen(logits, rows, selection_on(logits.device)) if rows else []


def logprobs_of(
    logits: torch.Tensor, tokens: Sequence[int], tops: Sequence[int]
) -> list[tuple[float, list[tuple[int, float]]]]:
    """The log-probability of each row's token under logits [M, V], and `tops` of the most probable tokens with theirs.

    The most probable come first, equal ones by token.
    """
    if not tokens:
        return []
    by = selection_on(logits.device)
    maxima = logits.amax(-1)
    denominators = maxima.double() + log_totals(logits, maxima, by)
    chosen = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].double() - denominators
    best: list[list[tuple[int, float]]] = []
    for part, given in zip(torch.split(logits, 64), torch.split(denominators, 64), strict=True):
        best += _most_probable(part, given, tops[len(best) : len(best) + len(part)], by)
    return list(zip(chosen.tolist(), best, strict=True))


def _most_probable(
    logits: torch.Tensor, denominators: torch.Tensor, tops: Sequence[int], by: Selection
) -> list[list[tuple[int, float]]]:
    most = min(max(tops), logits.shape[-1])
    if not most:
        return [[] for _ in tops]
    values, tokens = by.first(logits, most)
    found = (values.double() - denominators[:, None]).tolist()
    return [
        list(zip(row[:top], numbers, strict=False))
        for top, row, numbers in zip(tops, tokens.tolist(), found, strict=True)
    ]


_LOOKED_AT = (1 << 10, 1 << 14)
"""How many of the most probable tokens are looked at, first and then; all only where these do not decide."""
_BROKEN, _NONE_LEFT, _BROKEN_LATER = -2, -3, -4
"""In place of a token."""


@dataclass(frozen=True)
class _Source:
    """Logits, and which of their rows is at which place of the step, both in rising order."""

    logits: torch.Tensor
    rows: Mapping[int, int]

    def of(self, places: list[int]) -> torch.Tensor:
        """The logits of some places, not copied where these are all."""
        return self.logits if len(places) == len(self.logits) else self.logits[[self.rows[place] for place in places]]


def _chosen(logits: torch.Tensor, rows: Sequence[Row], by: Selection) -> list[int | BestiaryError]:
    maxima, tokens = by.maxima(logits)
    finite = (maxima < torch.inf) & (logits.amin(-1) > -torch.inf)  # NaN is in neither
    faults = torch.where(finite, 0, _BROKEN)
    changed = [place for place, row in enumerate(rows) if changes(row)]
    sources = [_Source(logits, {place: place for place, row in enumerate(rows) if not changes(row)})]
    errors: dict[int, BestiaryError] = {}
    if changed:
        own = logits[changed]  # a copy
        failed = penalise(own, [rows[place] for place in changed])
        errors = {changed[member]: error for member, error in failed.items()}
        sources.append(_Source(own, {place: member for member, place in enumerate(changed)}))
        maxima[changed], tokens[changed] = by.maxima(own)
        later = torch.where(maxima.isneginf(), _NONE_LEFT, torch.where(maxima.isfinite(), 0, _BROKEN_LATER))
        faults = torch.where(faults < 0, faults, later)
    unsettled = {place for place, row in enumerate(rows) if row.sampling.temperature >= 1e-5 and place not in errors}
    found: list[int] = []
    for most in (*_LOOKED_AT, logits.shape[-1]):
        for source in sources:
            places = [place for place in source.rows if place in unsettled]
            if places:
                samplings = [rows[place].sampling for place in places]
                keys = [rows[place].key for place in places]
                tokens[places] = draw(source.of(places), maxima[places], samplings, keys, most, by)
        found = torch.where(faults < 0, faults, tokens).tolist()  # here another device is waited for
        unsettled = {place for place in unsettled if found[place] == UNSETTLED}
        if not unsettled:
            break
    return [_outcome(token, row, errors.get(place)) for place, (token, row) in enumerate(zip(found, rows, strict=True))]


def _outcome(token: int, row: Row, error: BestiaryError | None) -> int | BestiaryError:
    where = f"position {len(row.tokens) - 1}" if row.tokens else None
    if token == _BROKEN:
        return GenerationError(
            "The model's logits are not finite.",
            where=where,
            fix="`bestiary check --finite` looks for damaged weights; float16 overflows where bfloat16 and float32 "
            "do not",
        )
    if error is not None:
        return error
    if token == _BROKEN_LATER:
        return GenerationError(
            "Penalties or processors made logits that are not finite.",
            where=where,
            fix="check the processors and the repetition_penalty of the request",
        )
    if token == _NONE_LEFT:
        others = "the grammar, logit_bias, processors" if row.mask is not None else "logit_bias, processors"
        return GenerationError(
            "No token is left to choose from.", where=where, fix=f"check {others} and min_tokens of the request"
        )
    return token
