"""Python literals and Gemma's notation come out as the JSON of the same value."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.generation.tools.gemma import Gemma4Parser
from bestiary.generation.tools.literals import PYTHON, Notation, literal
from bestiary.generation.tools.reader import Malformed, Reader

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.text("abcxyz_-09", min_size=1, max_size=6)
GEMMA_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab {}[]:,\"'\\é\n<|", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
).filter(lambda value: '<|"' not in json.dumps(value, ensure_ascii=False).replace("\\", ""))


def read(parts: list[str], notation: Notation) -> tuple[str, str]:
    """The JSON text, and what followed the value."""
    reader, out = Reader(), list[str]()
    steps = literal(reader, notation, out.append)
    for part in (*parts, None):
        if part is None:
            reader.closed = True
        else:
            reader.feed(part)
        running = next(steps, "ended") is None
    assert not running, "it asks for more text after the end"
    return "".join(out), reader.text[reader.at :]


def gemma(value: Any) -> str:
    """As the template of Gemma 4 writes a value."""
    match value:
        case str():
            return f'<|"|>{value}<|"|>'
        case dict():
            return "{" + ",".join(f"{key}:{gemma(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ",".join(map(gemma, value)) + "]"
        case bool():
            return "true" if value else "false"
    return str(value)


@given(VALUES)
def test_python(value: Any) -> None:
    text = repr(value)
    whole, _ = read([text + ")"], PYTHON)
    assert json.loads(whole) == value
    found, rest = read([*text, ")"], PYTHON)
    assert (found, rest) == (whole, ")")


@given(GEMMA_VALUES)
def test_gemma(value: Any) -> None:
    text = gemma(value)
    whole, _ = read([text + "}"], Gemma4Parser.notation)
    assert json.loads(whole) == value
    assert read([*text, "}"], Gemma4Parser.notation) == (whole, "}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'it\\'s \\x41\\u00e9\\U0001F600\\n'", "it's Aé😀\n"),
        ('"""a "quoted" text"""', 'a "quoted" text'),
        ('""', ""),
        ("'\\d+ \\U99999999'", "\\d+ \\U99999999"),
        ("(1, 2)", [1, 2]),
        ("{'a': None, \"b\": (True, false)}", {"a": None, "b": [True, False]}),
        (" [ ] ", []),
        ("-1.5e3", -1500.0),
    ],
)
def test_notations_of_python(text: str, value: object) -> None:
    for parts in ([text], list(text)):
        assert json.loads(read(parts, PYTHON)[0]) == value


@pytest.mark.parametrize(
    "text", ["", "[", "[1", "[1,]", "{'a' 1}", "{a: 1}", "f(1)", "x", "01", "1_000", "'a", "'a\\", "[" * 101, "1 + 1"]
)
def test_what_is_no_literal(text: str) -> None:
    for parts in ([text], list(text)):
        try:
            _, rest = read(parts, PYTHON)
        except Malformed:
            continue
        assert rest, "something is left over, which the caller refuses"
