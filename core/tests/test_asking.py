"""Options of requests: what can be, and what is an error with the bounds in it."""

from typing import Any

import pytest

from bestiary.asking import check_number, check_whole, seeds_of
from bestiary.diffusion.request import ImageOptions
from bestiary.errors import OptionError
from bestiary.generation.sampling import Sampling
from bestiary.speech.request import SpeechOptions

HUGE = 10**400
LONGER = 10**5000
"""More digits than Python writes."""
NOTHING_AMONG = (True, "1", [], float("nan"), float("inf"), HUGE, -HUGE)


@pytest.mark.parametrize("value", [*NOTHING_AMONG, None, 1.0, 0, 6], ids=str)
def test_whole_numbers(value: Any) -> None:
    check_whole("n", 1, 1, 5)
    check_whole("n", 5, 1, 5)
    check_whole("n", None, 1, 5, optional=True)
    with pytest.raises(OptionError, match=r"n is .*; a whole number from 1 to 5 is due"):
        check_whole("n", value, 1, 5)


@pytest.mark.parametrize("value", [*NOTHING_AMONG, None, -0.1, 2.6], ids=str)
def test_numbers(value: Any) -> None:
    for right in (0, 1, 2.5):
        check_number("p", right, 0.0, 2.5)
    check_number("p", None, 0.0, 2.5, optional=True)
    with pytest.raises(OptionError, match=r"p is .*; a number from 0 to 2.5 is due"):
        check_number("p", value, 0.0, 2.5)


@pytest.mark.parametrize("kind", [ImageOptions, SpeechOptions, Sampling])
def test_none_is_refused_where_it_means_nothing(kind: Any) -> None:
    for name in {"n", "strength", "min_tokens", "speed", "min_p"} & set(kind.__dataclass_fields__):
        with pytest.raises(OptionError, match=f"{name} is None"):
            kind(**{name: None})


def test_seeds() -> None:
    assert seeds_of(7, 3, "texts") == [7, 8, 9] and seeds_of([4, 4], 2, "texts") == [4, 4]
    assert len(set(seeds_of(None, 8, "texts"))) == 8
    for wrong in ("12", [1], [1, None], [1, 2, 3], (1, -1), True, HUGE, LONGER, 1.0, {1, 2}):
        with pytest.raises(OptionError, match="seed is "):
            seeds_of(wrong, 2, "texts")
