"""Events add up to a message; arguments are parsed with an error of ours."""

import pytest

from bestiary.errors import GenerationError
from bestiary.generation.tools.events import (
    CallArguments,
    CallCancel,
    CallEnd,
    CallStart,
    Event,
    Message,
    Reasoning,
    Text,
    ToolCall,
    assemble,
)


def test_assemble() -> None:
    events: list[Event] = [
        Reasoning("Hm"),
        Reasoning("."),
        Text("a"),
        CallStart(0, "f", "one"),
        CallArguments(0, '{"x":'),
        CallCancel(0),
        Text("b"),
        CallStart(0, "f"),
        CallArguments(0, "{"),
        CallArguments(0, "}"),
        CallStart(1, "g", "first"),
        CallEnd(0, "late"),
        CallEnd(1, "late"),
    ]
    calls = (ToolCall("late", "f", "{}"), ToolCall("first", "g", ""))
    assert assemble(events) == Message("ab", "Hm.", calls)
    assert assemble([]) == Message()


def test_an_open_call_has_its_arguments_so_far() -> None:
    assert assemble([CallStart(0, "f"), CallArguments(0, '{"a')]).tool_calls == (ToolCall(None, "f", '{"a'),)


def test_parsed() -> None:
    assert ToolCall(None, "f", '{"a": [1]}').parsed == {"a": [1]}


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"a": NaN}', "[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_parsed_refuses(text: str) -> None:
    with pytest.raises(GenerationError, match="arguments of a call of 'f'"):
        _ = ToolCall(None, "f", text).parsed
