"""Arguments written as a key and a value in elements of their own, with the value as plain text."""

import json

from bestiary.generation.tools.parser import GrammarParser
from bestiary.generation.tools.reader import Malformed, Markers, Reader, Step


class ElementArguments:
    """A call whose arguments come one by one; each is told as soon as it is whole."""

    def __init__(self, parser: GrammarParser, name: str) -> None:
        """Starts the call.  Malformed where no such tool was offered."""
        parser.start(name)
        self._parser, self._name = parser, name
        self._keys: set[str] = set()

    def add(self, key: str, value: str) -> None:
        """Malformed for a key that came before: two values leave open which one is meant."""
        if key in self._keys:
            raise Malformed
        before = ", " if self._keys else "{"
        self._keys.add(key)
        value = self._parser.offered.value(self._name, key, value)
        self._parser.arguments(f"{before}{json.dumps(key, ensure_ascii=False)}: {value}")

    def end(self) -> None:
        self._parser.arguments("}" if self._keys else "{}")


def element_text(reader: Reader, end: Markers, *following: str) -> Step[str]:
    """The text up to the closing tag `end`, which is taken with the white space after it.

    The tag counts only where one of `following` comes next: a value may speak about the tags of its own format.
    """
    parts: list[str] = []
    while (marker := (yield from reader.until(end, parts.append))) is not None:
        tag = reader.take(reader.at + len(marker))
        spaces = yield from reader.spaces()
        if (yield from reader.starts(*following)) is not None:
            return "".join(parts)
        parts += [tag, spaces]
    raise Malformed
