"""The phrases of a window, cut where the model wrote that one ends and the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Phrase:
    """Tokens, with their timestamps, and the times in steps of 0.02 seconds from the beginning of the window."""

    start: int
    end: int
    tokens: tuple[int, ...]


def phrases(tokens: Sequence[int], first_timestamp: int, length: int) -> tuple[list[Phrase], int]:
    """The phrases of a window of `length` steps, and how many steps it is to the next window.

    What follows the last pair of timestamps is cut off in its middle, and is left to the next window, unless one
    timestamp alone ends it: then nobody speaks after that.
    """
    times = [token >= first_timestamp for token in tokens]
    cuts = [place for place in range(1, len(tokens)) if times[place - 1] and times[place]]
    whole = times[-2:] == [False, True]
    if not cuts:
        last = next((token - first_timestamp for token in reversed(tokens) if token >= first_timestamp), 0)
        return [Phrase(0, last or length, tuple(tokens))], length
    made, begin = [], 0
    for end in [*cuts, len(tokens)] if whole else cuts:
        part = tokens[begin:end]
        made.append(Phrase(part[0] - first_timestamp, part[-1] - first_timestamp, tuple(part)))
        begin = end
    step = length if whole else tokens[begin - 1] - first_timestamp
    return made, step if step > 0 else length
