"""The nearest names to a wrong one: for messages only, never to decide."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, candidates: Iterable[str], count: int = 3, cutoff: float = 0.6) -> tuple[str, ...]:
    """At most `count` of `candidates` that look like `name`, the best first; letter case does not count."""
    by_lower: dict[str, str] = {}
    for candidate in candidates:
        by_lower.setdefault(candidate.lower(), candidate)
    return tuple(by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=count, cutoff=cutoff))


def did_you_mean(name: str, candidates: Iterable[str], count: int = 3) -> str:
    """ "Did you mean 'a' or 'b'?", or nothing where no candidate is near."""
    found = nearest(name, candidates, count)
    return f"Did you mean {' or '.join(map(repr, found))}?" if found else ""
