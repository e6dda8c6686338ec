"""Which variables a chat template takes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

_TARGETS = {"set": "=", "for": "in"}
"""Statements that name variables of their own, and what comes after the names."""

Word = tuple[str, str]


@lru_cache(maxsize=16)
def inputs_of(template: str) -> frozenset[str]:
    """The names that a template reads before it gives them a value itself; empty where it is not jinja2.

    The template is cut into words and not compiled: compiling one can take for ever (see `template_worker`).
    """
    from jinja2 import Environment
    from jinja2.exceptions import TemplateError

    inputs: set[str] = set()
    own: set[str] = set()
    try:
        for statement in _statements(Environment().lex(template)):
            written = _written(statement)
            inputs |= _read(statement[written:]) - own
            own |= {value for kind, value in statement[1:written] if kind == "name"}
    except TemplateError:
        return frozenset()
    return frozenset(inputs)


def _statements(words: Iterator[tuple[int, str, str]]) -> Iterator[list[Word]]:
    """The words of each `{% %}`, and of each `{{ }}` with an empty one for the name of a statement."""
    statement: list[Word] = []
    for _, kind, value in words:
        if kind in ("block_begin", "variable_begin"):
            statement = [] if kind == "block_begin" else [("", "")]
        elif kind in ("block_end", "variable_end"):
            yield statement
        elif kind in ("name", "operator"):
            statement.append((kind, value))
        elif kind != "whitespace":
            statement.append((kind, ""))


def _written(statement: list[Word]) -> int:
    """How many words at the beginning name the statement, and variables that it gives a value.

    The parameters of a macro are taken for such, here and wherever else the template has these names.
    """
    first = statement[0][1] if statement else ""
    if first in ("macro", "call"):
        return len(statement)
    end = _TARGETS.get(first)
    return next((place for place, word in enumerate(statement) if word[1] == end), 1) if end else 1


def _read(statement: list[Word]) -> set[str]:
    """The names of variables among words: no attribute, filter, test or keyword argument."""
    around = [("", ""), *statement, ("", "")]
    return {
        value
        for before, (kind, value), after in zip(around, statement, around[2:], strict=False)
        if kind == "name" and before[1] not in (".", "|", "is") and after[1] != "="
    }
