"""Text that comes in parts, read once and forward by generators that pause where they need more."""

import re
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")
Step = Generator[None, None, T]
"""A piece of a grammar: run with `yield from`, it pauses until more text has come and returns what it read."""

SPACE = re.compile(r"[ \t\r\n]*")


class Malformed(Exception):
    """What was read is not of the format; the reader stands at the first character that does not fit."""


class Markers:
    """Texts at which plain text ends, searched for together.

    No marker may lie inside another, except at its end; so the first that is whole is also the first that began.
    """

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self._pattern = re.compile("|".join(map(re.escape, texts)))
        self._beginnings = {text[:length] for text in texts for length in range(1, len(text))}
        self._longest = max(map(len, texts)) - 1

    def find(self, text: str, at: int) -> re.Match[str] | None:
        return self._pattern.search(text, at)

    def free(self, text: str, at: int) -> int:
        """Up to where `text`, in which no marker was found, cannot be part of one whatever follows."""
        for place in range(max(at, len(text) - self._longest), len(text)):
            if text[place:] in self._beginnings:
                return place
        return len(text)


class Reader:
    """Every character is taken once; what is looked at ahead is never longer than a marker, so time is linear.

    Between `begin` and `taken` what is taken is also kept: the text of a call that may turn out not to be one.
    """

    def __init__(self) -> None:
        self.text, self.at, self.closed = "", 0, False
        self._kept: list[str] | None = None

    def feed(self, text: str) -> None:
        self.text, self.at = self.text[self.at :] + text, 0

    def take(self, end: int) -> str:
        """The text up to position `end` of the buffer."""
        piece, self.at = self.text[self.at : end], end
        if self._kept is not None and piece:
            self._kept.append(piece)
        return piece

    def begin(self) -> None:
        self._kept = []

    def taken(self) -> str:
        """All that was taken since `begin`."""
        kept, self._kept = self._kept or [], None
        return "".join(kept)

    # Steps

    def peek(self) -> Step[str]:
        """The next character, which stays; empty at the end of the text."""
        while self.at == len(self.text) and not self.closed:
            yield
        return self.text[self.at : self.at + 1]

    def starts(self, *texts: str) -> Step[str | None]:
        """Which of these texts comes next, the first that fits; nothing is taken."""
        while True:
            left = len(self.text) - self.at
            for text in texts:
                if left >= len(text):
                    if self.text.startswith(text, self.at):
                        return text
                elif not self.closed and text.startswith(self.text[self.at :]):
                    break
            else:
                return None
            yield

    def accept(self, *texts: str) -> Step[str | None]:
        """`starts`, and takes it."""
        found = yield from self.starts(*texts)
        if found is not None:
            self.take(self.at + len(found))
        return found

    def expect(self, *texts: str) -> Step[str]:
        """`accept`, and Malformed where none of them comes."""
        found = yield from self.accept(*texts)
        if found is None:
            raise Malformed
        return found

    def expect_or_end(self, *texts: str) -> Step[None]:
        """Like `expect`, but the text may also end here: generation may stop before it writes a closing marker."""
        if (yield from self.accept(*texts)) is None and (yield from self.peek()):
            raise Malformed

    def spaces(self) -> Step[str]:
        """White space of any length."""
        parts: list[str] = []
        while True:
            found = SPACE.match(self.text, self.at)
            parts.append(self.take(found.end() if found else self.at))
            if self.at < len(self.text) or self.closed:
                return "".join(parts)
            yield

    def word(self, pattern: re.Pattern[str], most: int) -> Step[str]:
        """What `pattern`, one class repeated, matches: 1 to `most` characters, else Malformed."""
        parts: list[str] = []
        left = most
        while True:
            found = pattern.match(self.text, self.at, self.at + left + 1)
            if found:
                parts.append(self.take(found.end()))
                left -= len(parts[-1])
            if left < 0:
                raise Malformed
            if self.at < len(self.text) or self.closed:
                break
            yield
        if not parts:
            raise Malformed
        return "".join(parts)

    def until(self, markers: Markers, sink: Callable[[str], None]) -> Step[str | None]:
        """Gives the text before the first marker to `sink` as it comes; returns the marker, which is not yet taken.

        None where the text ends before any marker.
        """
        while True:
            found = markers.find(self.text, self.at)
            free = len(self.text) if self.closed or found else markers.free(self.text, self.at)
            end = found.start() if found else free
            if end > self.at:
                sink(self.take(end))
            if found:
                return found.group()
            if self.closed:
                return None
            yield

    def rest(self, sink: Callable[[str], None]) -> Step[None]:
        """Gives all further text to `sink`."""
        while True:
            if self.at < len(self.text):
                sink(self.take(len(self.text)))
            if self.closed:
                return
            yield
