"""Which tokens of a prompt stand for which rows of which medium."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bestiary.errors import MediaError
from bestiary.media.prepared import Prepared
from bestiary.media.processor import Positions, Processor

_ROWS = 1 << 64
_MEDIUM = 1 << 320
"""Above every token and every digest with a row."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A medium, and the tokens of the prompt that stand for its rows, in their order [rows] int64."""

    medium: Prepared
    places: np.ndarray


@dataclass(frozen=True, eq=False)
class MediaPrompt:
    """The media of a prompt, in the order in which they come."""

    placed: tuple[Placed, ...]
    runs: tuple[tuple[int, int], ...] = ()
    """Of tokens that see each other both ways: first, and one after the last.  Such a run is computed in one piece."""
    positions: Positions | None = None

    def within(self, start: int, end: int) -> Iterator[tuple[Placed, int, int]]:
        """The media with tokens in [start, end), each with the range of its rows that stand there."""
        for each in self.placed:
            first, last = np.searchsorted(each.places, (start, end))
            if first < last:
                yield each, int(first), int(last)

    def run_across(self, place: int) -> tuple[int, int] | None:
        """The run that a cut before this token would part."""
        return next((run for run in self.runs if run[0] < place < run[1]), None)

    def runs_before(self, start: int, end: int) -> tuple[tuple[int, int], ...]:
        """Those with tokens in [start, end)."""
        return tuple(run for run in self.runs if run[0] < end and run[1] > start)

    @cached_property
    def identities(self) -> Mapping[int, int]:
        """By place what the token there is, to whoever compares prompts: the row of a medium, by the medium's hash."""
        made: dict[int, int] = {}
        for each in self.placed:
            root = _MEDIUM | int.from_bytes(each.medium.digest, "little") * _ROWS
            made.update((int(place), root | row) for row, place in enumerate(each.places))
        return made


def place_media(tokens: Sequence[int], media: Sequence[Prepared], processor: Processor) -> MediaPrompt:
    """Find the tokens that stand for media: the first rows of a token are those of the first medium that has it.

    Raises MediaError where they are more or fewer than the media have rows.
    """
    numbers = np.asarray(tokens, np.int64)
    places = {token: np.flatnonzero(numbers == token) for token in processor.tokens.values()}
    used = dict.fromkeys(places, 0)
    placed = []
    for medium in media:
        token = processor.tokens[medium.kind]
        start = used[token]
        used[token] = start + medium.rows
        placed.append(Placed(medium, places[token][start : start + medium.rows]))
    for token, count in used.items():
        if count != len(places[token]):
            kinds = " and ".join(f"{kind}s" for kind, other in processor.tokens.items() if other == token)
            raise MediaError(
                f"The prompt has {len(places[token])} tokens that stand for rows of {kinds}; the {kinds} have {count}.",
                fix="leave the placeholders of media to the chat template, or give one for each",
            )
    runs = _runs(np.concatenate([each.places for each in placed])) if processor.whole and placed else ()
    return MediaPrompt(tuple(placed), runs, processor.positions(len(numbers), placed) if placed else None)


def _runs(places: np.ndarray) -> tuple[tuple[int, int], ...]:
    places = np.sort(places)
    cuts = np.flatnonzero(np.diff(places) != 1) + 1
    return tuple((int(part[0]), int(part[-1]) + 1) for part in np.split(places, cuts))
