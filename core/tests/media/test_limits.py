"""Limits that cannot be meant are refused when they are written down, not when a picture comes."""

import pytest

from bestiary.errors import OptionError
from bestiary.media.limits import DEFAULT, MediaLimits


def test_the_defaults_are_those_of_a_program_for_itself() -> None:
    assert MediaLimits() == DEFAULT
    assert (DEFAULT.bytes, DEFAULT.seconds, DEFAULT.redirects) == (64 << 20, 30.0, 3)
    assert (DEFAULT.remote, DEFAULT.local, DEFAULT.private, DEFAULT.max_edge) == ("public", True, False, None)


@pytest.mark.parametrize(
    "name", ["bytes", "pixels", "edge", "frames", "video_pixels", "max_edge", "count", "redirects"]
)
@pytest.mark.parametrize("value", [-1, 1 << 63, 1.5, True, "3", float("nan"), [1]])
def test_numbers_out_of_bounds(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=name):
        MediaLimits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["bytes", "pixels", "edge", "frames", "video_pixels", "max_edge"])
def test_what_would_let_nothing_pass(name: str) -> None:
    with pytest.raises(OptionError, match=name):
        MediaLimits(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "30", None])
def test_seconds(value: object) -> None:
    with pytest.raises(OptionError, match="seconds"):
        MediaLimits(seconds=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1, 0, "yes", None])
@pytest.mark.parametrize("name", ["local", "private"])
def test_switches(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=name):
        MediaLimits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["on", "example.com", True, None, ["example.com"], {"example.com"}])
def test_remote_is_one_of_two_words_or_a_tuple(value: object) -> None:
    with pytest.raises(OptionError, match="remote"):
        MediaLimits(remote=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host", ["", "http://example.com", "example.com:80", "example.com/x", "a b", "*", "*.", "a.*.com", 3, None]
)
def test_remote_names_hosts(host: object) -> None:
    with pytest.raises(OptionError, match="host"):
        MediaLimits(remote=("example.com", host))  # type: ignore[arg-type]


def test_remote_takes_hosts() -> None:
    hosts = ("example.com", "*.Example.org", "93.184.216.34", "2606:2800:220:1::1", "localhost", "a")
    assert MediaLimits(remote=hosts).remote == hosts
    assert MediaLimits(remote=()).remote == ()
