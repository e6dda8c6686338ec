"""Values in notations close to JSON, written anew as JSON while they are read."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from bestiary.generation.tools.json_scanner import DEPTH
from bestiary.generation.tools.reader import Malformed, Markers, Reader, Step

_SCALAR = re.compile(r"[-+.0-9A-Za-z]+")
_SCALAR_LENGTH = 64
_NUMERIC = frozenset("-0123456789")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\Z")
_KEY_TEXT = re.compile(r"""[^:,\[\]{}()<>"'\s]+""")
_KEY_LENGTH = 128
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""}

# What may come next.
_VALUE, _VALUE_OR_END, _KEY, _KEY_OR_END, _COLON, _COMMA_OR_END, _NOTHING = range(7)
_KEYS = (_KEY, _KEY_OR_END)
_MAY_END = (_VALUE_OR_END, _KEY_OR_END, _COMMA_OR_END)


@dataclass(frozen=True)
class Quote:
    """How a string begins and ends."""

    start: str
    end: str
    escapes: bool = False
    """Whether a backslash escapes, as in Python."""

    @cached_property
    def ends(self) -> Markers:
        return Markers(self.end, *(("\\",) if self.escapes else ()))

    def find_end(self, text: str, at: int) -> int:
        """Where the closing quote stands in `text`, or -1."""
        while (found := self.ends.find(text, at)) and found.group() != self.end:
            at = found.end() + 1
        return found.start() if found else -1

    def value(self, raw: str) -> str:
        """The JSON text of a string, from what stands between its quotes."""
        return _quoted(_ESCAPE.sub(_unescape, raw) if self.escapes else raw)


@dataclass(frozen=True)
class Notation:
    """What a family of literals allows."""

    quotes: tuple[Quote, ...]
    """Of two that begin alike the longer comes first."""
    words: Mapping[str, str]
    """The JSON text of each word."""
    brackets: Mapping[str, str]
    """The closing bracket of each opening one; "{" is an object, any other an array."""
    bare_keys: bool = False
    """Whether the keys of objects may go without quotes."""

    def scalar(self, word: str) -> str | None:
        """The JSON text of a word or a number, None where it is neither."""
        return self.words.get(word, word if _NUMBER.match(word) else None)


PYTHON = Notation(
    quotes=tuple(Quote(quote, quote, escapes=True) for quote in ('"""', "'''", '"', "'")),
    words={"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"},
    brackets={"[": "]", "(": ")", "{": "}"},
)


def literal(reader: Reader, notation: Notation, sink: Callable[[str], None]) -> Step[None]:
    """Reads one value and gives its JSON text to `sink` as it comes; Malformed where it is none.

    No recursion; strings are the only part of unbounded length, and each character is read once.
    """
    value = _Value(notation)
    while True:
        reader.take(value.advance(reader.text, reader.at))
        sink("".join(value.out))
        value.out.clear()
        if value.expected == _NOTHING:
            return
        if value.failed:
            raise Malformed
        if reader.at < len(reader.text):
            yield from _text(reader, notation, value.expected, sink)
            value.end_text()
        elif reader.closed:
            raise Malformed
        else:
            yield


class _Value:
    """Where in a value the reader is; it reads brackets, commas, and the texts that are whole in the buffer."""

    def __init__(self, notation: Notation) -> None:
        self.expected = _VALUE
        self.failed = False
        self.out: list[str] = []
        self._notation = notation
        self._closers: list[str] = []

    def advance(self, text: str, at: int) -> int:
        """Reads from `at` up to a string or word that `text` does not hold to its end, or to the end of the value."""
        out, closers, brackets = self.out, self._closers, self._notation.brackets
        while at < len(text) and self.expected != _NOTHING and not self.failed:
            character, expected = text[at], self.expected
            if character in " \t\r\n":
                at += 1
            elif expected in _MAY_END and character == closers[-1]:
                out.append("}" if closers.pop() == "}" else "]")
                self._end_value()
                at += 1
            elif expected == _COMMA_OR_END and character == ",":
                out.append(", ")
                self.expected = _KEY if closers[-1] == "}" else _VALUE
                at += 1
            elif expected == _COLON and character == ":":
                out.append(": ")
                self.expected = _VALUE
                at += 1
            elif expected in (_COLON, _COMMA_OR_END):
                self.failed = True
            elif character in brackets and expected not in _KEYS and len(closers) < DEPTH:
                closers.append(brackets[character])
                out.append("{" if character == "{" else "[")
                self.expected = _KEY_OR_END if character == "{" else _VALUE_OR_END
                at += 1
            else:
                end = self._whole_text(text, at)
                if end == at:
                    break
                self.end_text()
                at = end
        return at

    def end_text(self) -> None:
        """A string or word is read, as a key or as a value."""
        if self.expected in _KEYS:
            self.expected = _COLON
        else:
            self._end_value()

    def _end_value(self) -> None:
        self.expected = _COMMA_OR_END if self._closers else _NOTHING

    def _whole_text(self, text: str, at: int) -> int:
        """Where the string or word at `at` ends, or `at` where that cannot be told here and now."""
        if text[at] not in _NUMERIC:
            end = self._whole_string(text, at)
            if end is not None:
                return end
        found = None if self.expected in _KEYS else _SCALAR.match(text, at, at + _SCALAR_LENGTH)
        if not found or found.end() == min(len(text), at + _SCALAR_LENGTH):
            return at
        scalar = self._notation.scalar(found.group())
        if scalar is None:
            return at
        self.out.append(scalar)
        return found.end()

    def _whole_string(self, text: str, at: int) -> int | None:
        """As `_whole_text`; None where no string begins at `at`."""
        for quote in self._notation.quotes:
            if text.startswith(quote.start, at):
                start = at + len(quote.start)
                end = quote.find_end(text, start)
                if end < 0:
                    return at
                self.out.append(quote.value(text[start:end]))
                return end + len(quote.end)
            if len(text) - at < len(quote.start) and quote.start.startswith(text[at:]):
                return at
        return None


def _text(reader: Reader, notation: Notation, expected: int, sink: Callable[[str], None]) -> Step[None]:
    """A key, a string, or a word, wherever the text is cut."""
    found = yield from reader.accept(*(quote.start for quote in notation.quotes))
    if found:
        yield from _string(reader, next(quote for quote in notation.quotes if quote.start == found), sink)
    elif expected in _KEYS:
        if not notation.bare_keys:
            raise Malformed
        sink(_quoted((yield from reader.word(_KEY_TEXT, _KEY_LENGTH))))
    else:
        scalar = notation.scalar((yield from reader.word(_SCALAR, _SCALAR_LENGTH)))
        if scalar is None:
            raise Malformed
        sink(scalar)


def _string(reader: Reader, quote: Quote, sink: Callable[[str], None]) -> Step[None]:
    """The rest of a string whose opening quote is taken."""
    if quote.escapes:
        sink(quote.value((yield from _until_unescaped(reader, quote))))
        return
    sink('"')
    found = yield from reader.until(quote.ends, lambda text: sink(_quoted(text)[1:-1]))
    if found is None:
        raise Malformed
    reader.take(reader.at + len(found))
    sink('"')


def _until_unescaped(reader: Reader, quote: Quote) -> Step[str]:
    parts: list[str] = []
    while True:
        text, at = reader.text, reader.at
        while (found := quote.ends.find(text, at)) and found.group() == "\\" and found.end() < len(text):
            at = found.end() + 1
        if found and found.group() == quote.end:
            parts.append(reader.take(found.start()))
            reader.take(found.end())
            return "".join(parts)
        parts.append(reader.take(found.start() if found else quote.ends.free(text, at)))
        if reader.closed:
            raise Malformed
        yield


def _unescape(found: re.Match[str]) -> str:
    escape = found.group()[1:]
    if len(escape) > 1:
        code = int(escape[1:], 16)
        return chr(code) if code <= 0x10FFFF else found.group()
    return _ESCAPED.get(escape, escape if escape in "\\'\"" else found.group())


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
