"""Numbers in words, as num2words writes them."""

import pytest

from bestiary_idefics.words import in_words

WORDS = {
    0: "zero",
    1: "one",
    12: "twelve",
    13: "thirteen",
    20: "twenty",
    21: "twenty-one",
    64: "sixty-four",
    99: "ninety-nine",
    100: "one hundred",
    101: "one hundred and one",
    110: "one hundred and ten",
    768: "seven hundred and sixty-eight",
    1000: "one thousand",
    1001: "one thousand and one",
    1100: "one thousand, one hundred",
    12345: "twelve thousand, three hundred and forty-five",
    1000001: "one million and one",
    1001000: "one million, one thousand",
    1048576: "one million, forty-eight thousand, five hundred and seventy-six",
}


def test_known_numbers() -> None:
    assert {number: in_words(number) for number in WORDS} == WORDS


def test_all_that_a_prompt_may_have() -> None:
    num2words = pytest.importorskip("num2words").num2words
    assert [in_words(number) for number in range(1500)] == [num2words(number) for number in range(1500)]
