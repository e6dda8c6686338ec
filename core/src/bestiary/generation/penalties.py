"""What changes logits before temperature: DRY, penalties, bias, a request's own processors, and masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bestiary.errors import BestiaryError, GenerationError, shown
from bestiary.generation.history import History, Integers

if TYPE_CHECKING:
    from bestiary.generation.choosing import Row

Processor = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]
"""(logits [V] in float32, all tokens so far) -> logits [V]."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
_LARGEST = float(np.finfo(np.float32).max)


def changes(row: Row) -> bool:
    """Whether a row is not chosen from the model's own logits."""
    sampling = row.sampling
    return bool(
        sampling.dry_multiplier
        or sampling.frequency_penalty
        or sampling.presence_penalty
        or sampling.repetition_penalty != 1.0
        or sampling.logit_bias
        or sampling.processors
        or row.mask is not None
        or _waits(row)
    )


def penalise(logits: torch.Tensor, rows: Sequence[Row]) -> dict[int, BestiaryError]:
    """Change logits [N, V] in float32 in place, as each row asks; the errors of processors, by the place of their row.

    Each penalty is one operation for all rows together, over the tokens that it concerns.
    """
    _add(logits, [_dry(row) for row in rows])
    counts = [_counts(row) for row in rows]
    _add(logits, [_frequency(row, *count) for row, count in zip(rows, counts, strict=True)])
    _multiply(logits, [_repetition(row, *count) for row, count in zip(rows, counts, strict=True)])
    _add(logits, [_bias(row) for row in rows])
    errors = {place: error for place, row in enumerate(rows) if (error := _process(logits, place, row)) is not None}
    _add(logits, [_held_back(row) for row in rows])
    _mask(logits, rows)
    return errors


# What each row asks: tokens, and a number for each

_Numbers = tuple[Integers, Floats]
_NOTHING: _Numbers = (np.empty(0, np.int64), np.empty(0))


def _dry(row: Row) -> _Numbers:
    """Penalise tokens that would make a repetition longer (DRY, p-e-w 2024, text-generation-webui pull request 5677).

    A token that followed an earlier copy of the last n tokens loses multiplier * base ** (n - allowed length), for the
    longest such n of at least the allowed length.
    """
    sampling = row.sampling
    if not sampling.dry_multiplier:
        return _NOTHING
    history = row.history or History()
    tokens, lengths = history.repeats(row.tokens, row.drafts, row.breakers, sampling.dry_allowed_length)
    # Beyond this exponent the penalty is larger than any logit; more would only overflow.
    excess = np.minimum(lengths - sampling.dry_allowed_length, 60)
    return tokens, -sampling.dry_multiplier * np.power(float(sampling.dry_base), excess)


def _counts(row: Row) -> tuple[Integers, Integers]:
    sampling = row.sampling
    if sampling.frequency_penalty or sampling.presence_penalty or sampling.repetition_penalty != 1.0:
        history = row.history or History()
        return history.counts(row.tokens, row.drafts, row.prompt_length)
    return np.empty(0, np.int64), np.empty(0, np.int64)


def _frequency(row: Row, tokens: Integers, counts: Integers) -> _Numbers:
    sampling = row.sampling
    if not (sampling.frequency_penalty or sampling.presence_penalty):
        return _NOTHING
    return tokens, -sampling.frequency_penalty * counts - sampling.presence_penalty * (counts > 0)


def _repetition(row: Row, tokens: Integers, counts: Integers) -> _Numbers:
    penalty = row.sampling.repetition_penalty
    return _NOTHING if penalty == 1.0 else (tokens, np.full(len(tokens), penalty, np.float64))


def _bias(row: Row) -> _Numbers:
    bias = row.sampling.logit_bias
    return np.array(list(bias), np.int64), np.array(list(bias.values()), np.float64)


def _held_back(row: Row) -> _Numbers:
    if not _waits(row):
        return _NOTHING
    return np.array(sorted(row.ends), np.int64), np.full(len(row.ends), -np.inf)


def _waits(row: Row) -> bool:
    return bool(row.ends) and len(row.tokens) - row.prompt_length < row.sampling.min_tokens


# How it is done to all rows


def _add(logits: torch.Tensor, asked: Iterable[_Numbers]) -> None:
    if (found := _flat(logits, asked)) is not None:
        places, numbers = found
        values = logits.view(-1)
        values[places] = values[places] + numbers


def _multiply(logits: torch.Tensor, asked: Iterable[_Numbers]) -> None:
    """Divide positive logits and multiply negative ones (CTRL, Keskar et al. 2019)."""
    if (found := _flat(logits, asked)) is not None:
        places, numbers = found
        values = logits.view(-1)
        before = values[places]
        values[places] = torch.where(before > 0, before / numbers, before * numbers)


def _flat(logits: torch.Tensor, asked: Iterable[_Numbers]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Places in the flattened logits, each once, with their numbers; None without any."""
    vocabulary = logits.shape[-1]
    places: list[Integers] = []
    numbers: list[Floats] = []
    for row, (tokens, given) in enumerate(asked):
        if len(tokens):
            known = tokens < vocabulary
            places.append(tokens[known] + row * vocabulary)
            numbers.append(given[known])
    if not places:
        return None
    together = np.concatenate(numbers)
    finite = np.where(np.isfinite(together), together.clip(-_LARGEST, _LARGEST), together)
    return (
        torch.from_numpy(np.concatenate(places)).to(logits.device),
        torch.from_numpy(finite.astype(np.float32)).to(logits.device),
    )


def _process(logits: torch.Tensor, place: int, row: Row) -> BestiaryError | None:
    """Call the request's own functions, which may do anything to their row and no other."""
    try:
        for processor in row.sampling.processors:
            made = processor(logits[place], row.tokens)
            if not isinstance(made, torch.Tensor) or made.shape != logits[place].shape:
                return GenerationError(
                    f"A logits processor of the request returned {shown(getattr(made, 'shape', made))}; "
                    f"a tensor of {logits.shape[-1]} logits is due."
                )
            logits[place] = made.detach().to(logits)
    except BestiaryError as error:
        return error
    except Exception as error:
        fault = GenerationError(f"A logits processor of the request failed: {shown(error)}")
        fault.__cause__ = error
        return fault
    return None


def _mask(logits: torch.Tensor, rows: Sequence[Row]) -> None:
    """-inf for every token that a grammar does not allow; tokens beyond the end of its mask are none."""
    masks = [(place, row.mask) for place, row in enumerate(rows) if row.mask is not None]
    if not masks:
        return
    vocabulary = logits.shape[-1]
    octets = np.zeros((len(masks), -(-vocabulary // 8)), np.uint8)
    for given, (_, mask) in zip(octets, masks, strict=True):
        own = mask.astype("<i4", copy=False).view(np.uint8)[: len(given)]
        given[: len(own)] = own
    # What each octet adds to its 8 logits: looking it up is several times as fast as unpacking and selecting.
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=-1, bitorder="little")
    table = torch.from_numpy(np.where(bits, 0.0, -np.inf).astype(np.float32)).to(logits.device)
    index = torch.from_numpy(octets.reshape(-1)).to(logits.device).int()
    added = table.index_select(0, index).view(len(masks), -1)[:, :vocabulary]
    logits.index_add_(0, torch.tensor([place for place, _ in masks], device=logits.device), added)
