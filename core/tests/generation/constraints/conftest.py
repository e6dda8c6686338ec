"""Compilers for real tokenizers, and a search for the spelling of a JSON value that a grammar accepts."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.constraints.grammar import Grammar
from bestiary.generation.constraints.state import ConstraintState
from bestiary.generation.tokenizer import Tokenizer

DEMO = Path(__file__).parents[4] / "plugins/text/demo/src/bestiary_demo/model"
EXTRA_ROWS = 37  # models have more rows than their tokenizers have tokens


def _compiler(tokenizer: Tokenizer) -> ConstraintCompiler:
    ends = [tokenizer.eos_id] if tokenizer.eos_id is not None else []
    return ConstraintCompiler(tokenizer, tokenizer.vocab_size + EXTRA_ROWS, ends)


@pytest.fixture(scope="session")
def demo(folder_repository: Callable[..., Any]) -> ConstraintCompiler:
    """The packaged model's tokenizer: byte-level, small."""
    return _compiler(Tokenizer.from_repository(folder_repository(DEMO)))


@pytest.fixture(scope="session")
def real(
    tokenizer_folders: dict[str, Path], folder_repository: Callable[..., Any]
) -> Callable[[str], ConstraintCompiler]:
    """A compiler by the name of a real tokenizer."""
    made: dict[str, ConstraintCompiler] = {}

    def compiler(name: str) -> ConstraintCompiler:
        if name not in made:
            made[name] = _compiler(Tokenizer.from_repository(folder_repository(tokenizer_folders[name])))
        return made[name]

    return compiler


@dataclass
class Members:
    """One object that is being spelled."""

    fixed: bool
    """Whether only one order is tried."""
    closed: bool = False


class Speller:
    """Feeds a value to a state byte by byte, the members of objects in every order until one is accepted.

    A grammar fixes the order of names and the whitespace; a JSON value has neither.  Objects of more than six members
    come in one order only: that of the `properties` in the schema, wherever these stand.
    """

    def __init__(self, state: ConstraintState, tokens: dict[bytes, int], schema: Any) -> None:
        self.text = ""
        self._state, self._tokens = state, tokens
        self._places = {name: place for place, name in enumerate(_property_names(schema))}

    def accepts(self, value: Any) -> bool:
        return self._value(value, lambda: self._state.can_end)

    def _value(self, value: Any, then: Callable[[], bool]) -> bool:
        if isinstance(value, dict):
            ordered = dict(sorted(value.items(), key=lambda member: self._places.get(member[0], len(self._places))))
            return self._feed("{", lambda: self._members(ordered, Members(len(value) > 6), "", then))
        if isinstance(value, list):
            return self._feed("[", lambda: self._items(value, "", then))
        return self._feed(json.dumps(value, ensure_ascii=False), then)

    def _items(self, values: list[Any], comma: str, then: Callable[[], bool]) -> bool:
        if not values:
            return self._feed("]", then)
        return self._feed(comma, lambda: self._value(values[0], lambda: self._items(values[1:], ", ", then)))

    def _members(self, left: dict[str, Any], members: Members, comma: str, then: Callable[[], bool]) -> bool:
        if not left:
            return self._feed("}", partial(self._closed, members, then))
        for name in list(left)[: 1 if members.fixed else None]:
            rest = {other: member for other, member in left.items() if other != name}
            head = f"{comma}{json.dumps(name, ensure_ascii=False)}: "
            if self._feed(head, partial(self._member, left[name], rest, members, then)):
                return True
            if members.closed:  # one order was accepted: what fails after it fails after any
                return False
        return False

    def _member(self, value: Any, rest: dict[str, Any], members: Members, then: Callable[[], bool]) -> bool:
        return self._value(value, lambda: self._members(rest, members, ", ", then))

    def _closed(self, members: Members, then: Callable[[], bool]) -> bool:
        members.closed = True
        return then()

    def _feed(self, text: str, then: Callable[[], bool]) -> bool:
        ids = [self._tokens[bytes([octet])] for octet in text.encode()]
        if self._state.accepts(ids) != len(ids):
            return False
        for token in ids:
            self._state.advance(token)
        before, self.text = self.text, self.text + text
        if then():
            return True
        self.text = before
        self._state.rollback(len(ids))
        return False


def _property_names(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for member in schema:
            yield from _property_names(member)
    elif isinstance(schema, dict):
        for keyword, value in schema.items():
            if keyword == "properties" and isinstance(value, dict):
                yield from value
            yield from _property_names(value)


@pytest.fixture(scope="session")
def takes() -> Callable[[ConstraintCompiler, Grammar, str], bool]:
    """Whether a grammar accepts a text in its usual tokens, each of which the mask before it must allow."""

    def check(compiler: ConstraintCompiler, grammar: Grammar, text: str) -> bool:
        state = compiler.compile(grammar)
        tokens = compiler.vocabulary.tokenizer.encode_after(text)
        if state.accepts(tokens) != len(tokens):
            return False
        for token in tokens:
            state.advance(token)
        return state.can_end

    return check


@pytest.fixture(scope="session")
def spelled(
    takes: Callable[[ConstraintCompiler, Grammar, str], bool],
) -> Callable[[ConstraintCompiler, Grammar, Any], str | None]:
    """The text in which a grammar accepts a value, byte by byte and in the usual tokens; None where it does not."""
    octets: dict[ConstraintCompiler, dict[bytes, int]] = {}

    def spell(compiler: ConstraintCompiler, grammar: Grammar, value: Any) -> str | None:
        if compiler not in octets:
            pieces = compiler.vocabulary.tokenizer.pieces
            every = {pieces.piece(token): token for token in range(compiler.vocabulary.tokenizer.vocab_size)}
            octets[compiler] = {piece: token for piece, token in every.items() if len(piece) == 1}
        speller = Speller(compiler.compile(grammar), octets[compiler], json.loads(grammar.source))
        if not speller.accepts(value):
            return None
        assert takes(compiler, grammar, speller.text), speller.text
        assert json.loads(speller.text) == value
        return speller.text

    return spell
