"""JsonScanner agrees with Python's json wherever the text is cut, and ends where the value ends."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.generation.tools.json_scanner import DEPTH, JsonScanner, json_kind

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
PIECES = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "\\",
    "\\u00",
    "41",
    "n",
    "null",
    "true",
    "-",
    "0",
    "1",
    ".",
    "e+",
    " ",
    "é",
]
KINDS = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null", int: "number"}


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def scan(parts: list[str]) -> tuple[str, str, bool]:
    """What was read, what was left, and whether a value was found."""
    scanner, rest = JsonScanner(), ""
    for part in parts:
        at = 0 if scanner.done or scanner.failed else scanner.scan(part, 0)
        rest += part[at:]
    if not scanner.done:
        scanner.close()
    return "".join(scanner.out), rest, scanner.done


@given(VALUES, st.booleans(), st.sampled_from(["", " ", "}", ",", "x", '"']), st.sampled_from([None, 1]))
def test_ends_where_the_value_ends(value: Any, ascii: bool, after: str, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    assert scan([text, after]) == (text, after, True)
    assert scan(list(text + after)) == (text, after, True)
    assert json_kind(text) == KINDS[int if type(value) is float else type(value)]


@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
def test_accepts_what_python_accepts(text: str) -> None:
    try:
        strict(text)
        valid = True
    except ValueError:
        valid = False
    assert (json_kind(text) is not None) == valid
    whole = scan([text])
    assert scan(list(text)) == whole


@pytest.mark.parametrize("text", ["41", '"a"', "[1]", "true"])
def test_white_space_around_a_value_is_none_of_it(text: str) -> None:
    assert json_kind(f" \t{text}\r\n ") == json_kind(text) is not None
    assert json_kind(" \n") is None and json_kind(f"{text}\u00a0") is None


def test_raw_control_characters_are_escaped_in_strings_only() -> None:
    found, rest, done = scan(['{"a":\n"x\ny\t\x00"}'])
    assert done and not rest
    assert found == '{"a":\n"x\\u000ay\\u0009\\u0000"}'
    assert json_kind('"a\nb"') is None


@pytest.mark.parametrize(
    "text", ["", " ", "tru", "-", "01", "1.", '"', '"\\', '"\\u12', "[1,]", '{"a"}', "{1:2}", "NaN"]
)
def test_what_is_no_value(text: str) -> None:
    assert json_kind(text) is None


def test_depth_is_bounded() -> None:
    assert json_kind("[" * DEPTH + "]" * DEPTH) == "array"
    assert json_kind("[" * (DEPTH + 1) + "]" * (DEPTH + 1)) is None
