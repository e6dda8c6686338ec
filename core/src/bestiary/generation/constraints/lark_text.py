"""Pieces of the Lark text that llguidance reads (its docs/syntax.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from bestiary.errors import RequestError, shown
from bestiary.generation.constraints.limits import LIMITS

_DEFINITION = re.compile(r"^[ \t]*(?:%override[ \t]+)?[!?_]*[A-Za-z][\w-]*[ \t]*[.:\[{]", re.MULTILINE)
_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.VERBOSE: "x"}


def check(text: str) -> None:
    """Refuses what could overflow the stack of llguidance's compiler, which no error of its own prevents."""
    if not isinstance(text, str):
        raise RequestError(f"A Lark grammar is a text, not {shown(text)}.")
    encodable(text)
    if len(text) > LIMITS.characters // 4:
        raise RequestError(f"The grammar has {len(text)} characters; at most {LIMITS.characters // 4} are taken.")
    count = sum(1 for _ in _DEFINITION.finditer(text))
    if count > LIMITS.definitions:
        raise RequestError(f"The grammar has {count} definitions; at most {LIMITS.definitions} are taken.")


def encodable(text: str) -> None:
    """Refuses lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"U+{ord(text[error.start]):04X}"
        raise RequestError(f"A lone surrogate ({found}) stands at {error.start}: no UTF-8 text holds it.") from None


def quoted(text: str) -> str:
    """A text as a literal."""
    encodable(text)
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")


def literal(text: str, special_tokens: Sequence[str] = ()) -> str:
    """A text as a sequence of literals, in which special tokens stand for themselves and are not spelled."""
    present = sorted((token for token in special_tokens if token and token in text), key=len, reverse=True)
    if not present:
        return quoted(text)
    parts = re.split("(" + "|".join(map(re.escape, present)) + ")", text)
    return " ".join(part if part in present else quoted(part) for part in parts if part) or '""'


def regex_rule(pattern: str | re.Pattern[str]) -> str:
    """A grammar of the texts that match a regular expression as a whole."""
    flags = ""
    if isinstance(pattern, re.Pattern):
        if pattern.flags & re.ASCII:
            raise RequestError("The flag re.ASCII has no counterpart; write the classes out.")
        flags = "".join(letter for flag, letter in _FLAGS.items() if pattern.flags & flag)
        pattern = pattern.pattern
    if not isinstance(pattern, str):
        raise RequestError(f"A regular expression is a text, not {shown(pattern)}.")
    check(pattern)
    if not pattern:
        return 'start: ""'
    body = re.sub(r"\\.|/|\n|\r|\t", _slashed, pattern, flags=re.DOTALL)
    return f"start: /{f'(?{flags})' if flags else ''}{body}/"


def choice_rule(texts: Sequence[str]) -> str:
    """A grammar of some texts."""
    if not 0 < len(texts) <= LIMITS.choices:
        raise RequestError(f"{len(texts)} choices; from 1 to {LIMITS.choices} are taken.")
    for text in texts:
        if not isinstance(text, str):
            raise RequestError(f"A choice is a text, not {shown(text)}.")
    return "start: CHOICE\nCHOICE: " + " | ".join(map(quoted, dict.fromkeys(texts)))


def _slashed(found: re.Match[str]) -> str:
    return {"/": r"\/", "\\/": r"\/", "\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(found[0], found[0])
