"""Strings found at once against strings found one by one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary_quant.gguf import string_array


def stored(texts: list[bytes]) -> bytes:
    return b"".join(struct.pack("<Q", len(text)) + text for text in texts)


LETTERS = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=12).map(str.encode)
ANYTHING = (
    LETTERS | st.binary(max_size=300) | st.sampled_from([b"", b"\0", b"\0" * 9, b"x" * 255, b"x" * 256, b"x" * 65_537])
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ANYTHING, max_size=100), st.binary(max_size=20), st.integers(64, 120))
def test_what_is_found_at_once_is_what_is_there(some: list[bytes], after: bytes, count: int) -> None:
    texts = (some + [b"letters"] * count)[:count]
    data = b"before" + stored(texts) + after
    assert string_array.span(data, 6, count) in (None, len(data) - 6 - len(after))
    found = string_array.texts(stored(texts), count)
    assert found is None or [text.encode() for text in found] == texts


WORDS = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=5)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), max_size=100))
def test_strings_are_parted_where_they_have_one_space_inside(some: list[tuple[str, str]]) -> None:
    pairs = (some + [("a" * 15, "b" * 16)] * 70)[: max(70, len(some))]
    sound = all(left and right and " " not in left + right for left, right in pairs)
    data = stored([f"{left} {right}".encode() for left, right in pairs])
    assert string_array.halves(data, len(pairs)) == (pairs if sound else None)


@pytest.mark.parametrize("text", ["", " ", "ab", " a", "a ", "a b c", "a\0 b"])
def test_strings_that_have_no_two_halves_are_left_to_others(text: str) -> None:
    assert string_array.halves(stored([b"a b"] * 70 + [text.encode()] + [b"a b"]), 72) is None


@pytest.mark.parametrize("length", [0, 1, 127, 255, 256, 8_000])
def test_ordinary_strings_are_found_at_once(length: int) -> None:
    texts = [f"{place:05}é".encode() for place in range(20_000)]
    texts[7_000] = b"y" * length
    data = stored(texts)
    assert string_array.span(data, 0, len(texts)) == len(data)
    assert string_array.texts(data, len(texts)) == [text.decode() for text in texts]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2_000))
def test_an_array_that_ends_too_early_is_left_to_others(length: int) -> None:
    data = stored([b"word"] * 200)[:length]
    assert string_array.span(data, 0, 200) is None
    assert string_array.texts(data, 200) is None


def test_what_is_not_text_is_left_to_others() -> None:
    assert string_array.texts(stored([b"\xff"] * 100), 100) is None
