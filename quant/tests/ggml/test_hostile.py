"""Hostile files end in the project's own error, soon and in little memory, whatever their numbers announce."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from neighbours import beside, outcomes_in_a_process

from bestiary.errors import CheckpointError
from bestiary_quant.ggml.header import parse

CORPUS = beside(__file__)
CASES = list(CORPUS.cases())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return outcomes_in_a_process(__file__, tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_case(number: int, outcomes: Any) -> None:
    outcome, says = outcomes["cases"][number], CASES[number].says
    if says is None:
        assert outcome == "opened"
        return
    assert outcome.startswith("bestiary.errors.CheckpointError: ") and says in outcome
    assert "case.bin" in outcome and len(outcome) < 1500
    assert "\0" not in outcome and "\x1b" not in outcome


def test_every_case_ends_soon(outcomes: Any) -> None:
    assert outcomes["longest"][0] < 1.0, outcomes["longest"]


def test_every_beginning_of_a_sound_file_is_refused(outcomes: Any) -> None:
    assert set(outcomes["prefixes"]) == {"bestiary.errors.CheckpointError"}
    assert len(outcomes["prefixes"]) == len(CORPUS.VALID[CORPUS.JT3]) > 1000
    for sound in CORPUS.VALID.values():
        assert {outcome(sound[:length]) for length in range(len(sound))} == {"refused"}


def outcome(content: bytes) -> str:
    """What parsing gives; any other error is one of the test."""
    try:
        header = parse(content, "case")
    except CheckpointError as error:
        assert len(str(error)) < 3000
        return "refused"
    assert all(entry.start < entry.end <= len(content) for entry in header.tensors.values())
    return "opened"


EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from([1, 2, 4]),
        st.sampled_from([0, 1, 2, 3, 4, 8, 12, 31, 32, 255, 1 << 31, (1 << 32) - 1]) | st.integers(0, (1 << 32) - 1),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(list(CORPUS.VALID.values())), EDITS)
def test_edited_files(sound: bytes, edits: list[tuple[float, int, int]]) -> None:
    content = bytearray(sound)
    for part, width, value in edits:
        place = int(part * len(content))
        content[place : place + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    outcome(bytes(content[: len(sound)]))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(CORPUS.VALID)), st.binary(max_size=300))
def test_any_bytes(magic: bytes, tail: bytes) -> None:
    assert outcome(magic + tail) == "refused"


@pytest.mark.parametrize("sound", CORPUS.VALID.values(), ids=[str(magic) for magic in CORPUS.VALID])
def test_the_files_that_the_edits_begin_with_are_sound(sound: bytes) -> None:
    assert outcome(sound) == "opened"
