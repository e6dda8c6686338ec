"""Calls written as JSON objects: what most formats put between their markers."""

import json
from collections.abc import Callable

from bestiary.generation.tools.json_scanner import json_kind, json_value
from bestiary.generation.tools.parser import GrammarParser
from bestiary.generation.tools.reader import Malformed, Reader, Step

ARGUMENTS = frozenset(("arguments", "parameters"))
IDS = frozenset(("id", "tool_call_id"))


def calls(parser: GrammarParser, strict: bool = False) -> Step[None]:
    """One call object, or a list of at least one.  `strict`: see `call_object`."""
    reader = parser.reader
    if (yield from reader.accept("[")) is None:
        return (yield from call_object(parser, strict))
    while True:
        yield from reader.spaces()
        yield from call_object(parser, strict)
        yield from reader.spaces()
        if (yield from reader.expect(",", "]")) == "]":
            return None


def call_object(parser: GrammarParser, strict: bool = False) -> Step[None]:
    """{"name": ..., "arguments": {...}}, with "parameters" for "arguments" and an id allowed, in any order.

    Where a marker has announced a call, other keys are skipped and a call without arguments has none.  `strict` is for
    JSON that may as well be an answer: other keys, or no arguments, mean that it is no call.
    """
    reader = parser.reader
    name: str | None = None
    id: str | None = None
    started = False
    early: list[str] = []  # Arguments written before the name.
    seen: set[str] = set()
    end = yield from reader.expect("{")
    while end != "}":
        yield from reader.spaces()
        key = yield from json_string(reader)
        yield from reader.spaces()
        yield from reader.expect(":")
        yield from reader.spaces()
        role = "arguments" if key in ARGUMENTS else "id" if key in IDS else key
        if role in seen:
            raise Malformed
        seen.add(role)
        if role == "name":
            name = yield from json_string(reader)
            if not parser.offered.accepts(name):
                raise Malformed
        elif role == "arguments" and name is None:
            yield from arguments_object(reader, early.append)
        elif role == "arguments" and name is not None:
            parser.start(name, id)
            started = True
            yield from arguments_object(reader, parser.arguments)
        elif role == "id":
            id = yield from json_string(reader)
            if started:
                parser.late_id(id)
        elif strict and role != "type":
            raise Malformed
        else:
            yield from json_value(reader, _ignore)
        yield from reader.spaces()
        end = yield from reader.expect(",", "}")
    if name is None or (strict and "arguments" not in seen):
        raise Malformed
    if not started:
        parser.start(name, id)
        parser.arguments("".join(early) or "{}")


def arguments_object(reader: Reader, sink: Callable[[str], None]) -> Step[None]:
    """A JSON object, or a string that holds the text of one, as in the messages of the OpenAI API."""
    first = yield from reader.peek()
    if first == "{":
        yield from json_value(reader, sink)
    elif first == '"':
        text = yield from json_string(reader)
        if json_kind(text.strip()) != "object":
            raise Malformed
        sink(text)
    else:
        raise Malformed


def json_string(reader: Reader) -> Step[str]:
    """The value of a JSON string."""
    if (yield from reader.peek()) != '"':
        raise Malformed
    parts: list[str] = []
    yield from json_value(reader, parts.append)
    value: str = json.loads("".join(parts))
    return value


def _ignore(text: str) -> None:
    """Skips what an announced call says besides its name, arguments and id."""
