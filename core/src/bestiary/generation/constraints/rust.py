"""The edge to llguidance: its import, its panics and its messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from bestiary.errors import BestiaryError, GenerationError, RequestError


def import_llguidance() -> ModuleType:
    """Raises BestiaryError with the command that installs it."""
    try:
        import llguidance
    except ImportError as error:
        raise BestiaryError(
            f"Constrained decoding needs llguidance, which cannot be imported: {error}",
            fix='pip install "llguidance>=1.9,<2"',
        ) from error
    return llguidance


@contextmanager
def rust_call(doing: str, failed: Callable[[], None] | None = None) -> Iterator[None]:
    """Turns every failure of the Rust side into a GenerationError, and tells `failed` of it first.

    A panic there arrives as PanicException, which is no subclass of Exception.
    """
    try:
        yield
    except (BestiaryError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if failed is not None:
            failed()
        raise GenerationError(f"llguidance failed while {doing}: {error}") from error


_PLACE = re.compile(r"^(?:at )?(\d+)\((\d+)\): ")


def refusal(message: str) -> RequestError:
    """What llguidance says of a grammar, as an error with the line and column that it names."""
    message = message.removesuffix("\n<non-verbose/>").strip()
    place = _PLACE.match(message)
    lines = message[place.end() if place else 0 :].splitlines()
    told = [line for line in lines if not re.match(r"\s*\d+ \| |\s*\^\s*$", line)]
    what = " ".join(line.strip() for line in told)[:500] or "no reason is given"
    where = f"line {place[1]}, column {place[2]}" if place else None
    return RequestError(f"The grammar is refused: {what}", where=where)
