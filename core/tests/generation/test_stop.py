"""StopStrings: the result depends on the text, not on how it was cut."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.errors import OptionError
from bestiary.generation.stop import StopStrings

TEXTS = st.text("ab<|é😀", max_size=24)
STOPS = st.lists(st.text("ab<|é😀", min_size=1, max_size=5), min_size=1, max_size=4)


def naive(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition: the first end of any stop string; of those that end there the longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


def run(parts: list[str], stops: list[str]) -> tuple[str, str | None]:
    search = StopStrings(stops)
    out = ""
    for part in parts:
        text, stopped = search.push(part)
        out += text
        if stopped:
            assert search.push("more") == ("", True)
            assert search.flush() == ""
            return out, search.matched
    return out + search.flush(), None


@given(TEXTS, STOPS)
def test_whole_text_is_the_definition(text: str, stops: list[str]) -> None:
    assert run([text], stops) == naive(text, stops)


@given(TEXTS, STOPS)
def test_a_cut_at_any_place_changes_nothing(text: str, stops: list[str]) -> None:
    whole = naive(text, stops)
    assert run(list(text), stops) == whole
    for place in range(len(text) + 1):
        assert run([text[:place], text[place:]], stops) == whole


@given(TEXTS, STOPS)
def test_no_more_is_held_back_than_could_begin_a_stop_string(text: str, stops: list[str]) -> None:
    search = StopStrings(stops)
    seen = ""
    for place, character in enumerate(text, 1):
        out, stopped = search.push(character)
        seen += out
        if stopped:
            return
        begun = [size for stop in stops for size in range(1, len(stop)) if text[:place].endswith(stop[:size])]
        assert len(seen) == place - max(begun, default=0)


def test_a_stop_string_over_the_border_of_two_tokens() -> None:
    search = StopStrings(["<|im_end|>", "\nUser:"])
    assert search.push("Hi <|im_") == ("Hi ", False)
    assert search.push("x") == ("<|im_x", False)
    assert search.push("y\nUs") == ("y", False)
    assert search.push("er: and") == ("", True)
    assert search.matched == "\nUser:"


def test_time_is_linear_in_the_text() -> None:
    """The worst case for a search that starts anew at each character: `aaa...b` in `aaaaaa...`."""

    def seconds(size: int) -> float:
        search = StopStrings(["a" * 5000 + "b", "a" * 4000 + "c"])
        begin = time.process_time()
        for _ in range(size // 100):
            search.push("a" * 100)
        return time.process_time() - begin

    # What is quadratic takes 16 times as long; the least of several is not that of a machine with other work.
    assert min(seconds(160_000) for _ in range(4)) < 10 * min(seconds(40_000) for _ in range(4))


def test_what_is_not_a_stop_string() -> None:
    for stops in ([""], ["a", ""], [None]):
        with pytest.raises(OptionError):
            StopStrings(stops)  # type: ignore[arg-type]
    assert StopStrings([]).push("abc") == ("abc", False)
    assert StopStrings("abc").push("abc") == ("", True)
