"""The end of a JSON value, in text that comes in parts."""

import re
from collections.abc import Callable

from bestiary.generation.tools.reader import SPACE, Malformed, Reader, Step

DEPTH = 100
"""Values nested deeper are malformed: what reads them after us may recurse."""

_RUN = re.compile(r'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(r"[-+.0-9eE]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?\Z")
_WORDS = {"t": "true", "f": "false", "n": "null"}
_ESCAPES = frozenset('"\\/bfnrt')
_HEX = frozenset("0123456789abcdefABCDEF")
_KIND = {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null"}

# What may come next.
_VALUE, _VALUE_OR_END, _KEY, _KEY_OR_END, _COLON, _AFTER, _STRING, _ESCAPE, _UNICODE, _NUMERAL, _WORD = range(11)


class JsonScanner:
    """One value of RFC 8259, checked character by character without recursion and without looking back.

    Raw control characters inside strings, which some models write in place of escapes, are accepted; `out` has them
    escaped, so it joins to valid JSON.  Nothing else is repaired.
    """

    def __init__(self) -> None:
        self.done = False
        """The value is whole.  A number outside of any array or object is so only when something follows it."""
        self.failed = False
        self.out: list[str] = []
        self._state = _VALUE
        self._closers: list[str] = []
        self._is_key = False
        self._left = 0
        self._word = ""
        self._number: list[str] = []

    def scan(self, text: str, at: int) -> int:
        """Reads from `at`; returns where it stopped: at the end of `text`, or sooner when `done` or `failed`."""
        start, end = at, len(text)
        while at < end and not self.done:
            state = self._state
            if state == _STRING:
                found = _RUN.match(text, at)
                at = found.end() if found else at
                if at == end:
                    break
                character = text[at]
                if character == '"':
                    at += 1
                    self._end_string()
                elif character == "\\":
                    if at + 1 < end and text[at + 1] in _ESCAPES:  # The usual case, in one step.
                        at += 2
                    else:
                        self._state = _ESCAPE
                        at += 1
                else:
                    self.out.append(text[start:at] + f"\\u{ord(character):04x}")
                    at += 1
                    start = at
            elif state >= _ESCAPE:
                at = self._inner(state, text, at)
            else:
                at = self._structure(state, text, at)
            if self.failed:
                break
        self.out.append(text[start:at])
        return at

    def close(self) -> None:
        """No more text comes: a number may be whole now."""
        if self._state == _NUMERAL and not self._closers:
            self._end_number()
        self.failed = not self.done

    def _structure(self, state: int, text: str, at: int) -> int:
        character = text[at]
        if character in " \t\r\n":
            found = SPACE.match(text, at)
            return found.end() if found else at
        if state == _COLON:
            if character == ":":
                self._state = _VALUE
                return at + 1
        elif state == _AFTER:
            if character == ",":
                self._state = _KEY if self._closers[-1] == "}" else _VALUE
                return at + 1
            if character == self._closers[-1]:
                return self._pop(at)
        elif state in (_KEY, _KEY_OR_END):
            if character == '"':
                self._state, self._is_key = _STRING, True
                return at + 1
            if character == "}" and state == _KEY_OR_END:
                return self._pop(at)
        elif character == "]" and state == _VALUE_OR_END:
            return self._pop(at)
        else:
            return self._begin_value(character, at)
        self.failed = True
        return at

    def _begin_value(self, character: str, at: int) -> int:
        if character == '"':
            self._state, self._is_key = _STRING, False
        elif character in "[{" and len(self._closers) < DEPTH:
            self._closers.append("]" if character == "[" else "}")
            self._state = _VALUE_OR_END if character == "[" else _KEY_OR_END
        elif character == "-" or "0" <= character <= "9":
            self._state = _NUMERAL
            return at
        elif character in _WORDS:
            self._state, self._word, self._left = _WORD, _WORDS[character], 1
        else:
            self.failed = True
            return at
        return at + 1

    def _inner(self, state: int, text: str, at: int) -> int:
        """Inside an escape, a number, or one of the three words."""
        character = text[at]
        if state == _NUMERAL:
            found = _DIGITS.match(text, at)
            end = found.end() if found else at
            self._number.append(text[at:end])
            if end < len(text):
                self._end_number()
            return end
        if state == _ESCAPE and character in _ESCAPES:
            self._state = _STRING
        elif state == _ESCAPE and character == "u":
            self._state, self._left = _UNICODE, 4
        elif state == _UNICODE and character in _HEX:
            self._left -= 1
            if not self._left:
                self._state = _STRING
        elif state == _WORD and character == self._word[self._left]:
            self._left += 1
            if self._left == len(self._word):
                self._end_value()
        else:
            self.failed = True
            return at
        return at + 1

    def _pop(self, at: int) -> int:
        self._closers.pop()
        self._end_value()
        return at + 1

    def _end_string(self) -> None:
        if self._is_key:
            self._state = _COLON
        else:
            self._end_value()

    def _end_number(self) -> None:
        number = "".join(self._number)
        self._number.clear()
        if _NUMBER.match(number):
            self._end_value()
        else:
            self.failed = True

    def _end_value(self) -> None:
        self._state = _AFTER
        self.done = not self._closers


def json_value(reader: Reader, sink: Callable[[str], None]) -> Step[None]:
    """Reads one value and gives its text to `sink` as it comes; Malformed at the first character that does not fit."""
    scanner = JsonScanner()
    while True:
        reader.take(scanner.scan(reader.text, reader.at))
        if reader.closed and not scanner.done:
            scanner.close()
        sink("".join(scanner.out))
        scanner.out.clear()
        if scanner.failed:
            raise Malformed
        if scanner.done:
            return
        yield


def json_kind(text: str) -> str | None:
    """ "object", "array", "string", "number", "boolean" or "null" where all of `text` is one value, else None.

    White space may stand around it, as for Python's json.
    """
    text = text.rstrip(" \t\r\n")
    scanner = JsonScanner()
    if scanner.scan(text, 0) < len(text) or scanner.failed:
        return None
    if not scanner.done:
        scanner.close()
    # Escaped control characters would no longer be the text that was asked about.
    return _KIND.get(text.lstrip()[0], "number") if scanner.done and "".join(scanner.out) == text else None
