"""Limits that cannot be meant are refused when they are written down."""

import pytest

from bestiary.audio.limits import DEFAULT, AudioLimits
from bestiary.errors import OptionError
from bestiary.media.limits import MediaLimits


def test_the_defaults_are_those_of_one_request() -> None:
    assert AudioLimits() == DEFAULT
    assert (DEFAULT.duration, DEFAULT.rate, DEFAULT.channels) == (1800, 768_000, 8)
    assert DEFAULT.source == MediaLimits()


@pytest.mark.parametrize("name", ["duration", "rate", "channels", "decoded_bytes", "source"])
@pytest.mark.parametrize("value", [0, -1, 1 << 63, True, "3", float("nan"), None])
def test_numbers_out_of_bounds(name: str, value: object) -> None:
    if (name, value) == ("duration", 1 << 63):
        return
    with pytest.raises(OptionError, match=name):
        AudioLimits(**{name: value})  # type: ignore[arg-type]
