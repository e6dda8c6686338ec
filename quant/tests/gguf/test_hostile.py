"""Hostile GGUF files end in the project's own error, soon and in little memory, whatever their numbers announce."""

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from neighbours import beside, outcomes_in_a_process

from bestiary.errors import CheckpointError
from bestiary_quant.gguf.cursor import Incomplete
from bestiary_quant.gguf.header import parse

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
    assert "case.gguf" in outcome and len(outcome) < 1500
    assert "\0" not in outcome and "\x1b" not in outcome


def test_every_case_ends_soon(outcomes: Any) -> None:
    assert outcomes["longest"][0] < 1.0, outcomes["longest"]


def test_every_beginning_of_a_sound_file_is_refused(outcomes: Any) -> None:
    assert set(outcomes["prefixes"]) == {"bestiary.errors.CheckpointError"}
    assert len(outcomes["prefixes"]) == len(CORPUS.VALID) - 16


def outcome(content: bytes, size: int | None = None) -> str:
    """What parsing gives; any other error than these two is one of the test."""
    try:
        header = parse(content, len(content) if size is None else size, "case")
        for key in header.metadata:
            assert header.metadata[key] is not None
    except CheckpointError as error:
        assert len(str(error)) < 3000
        return "refused"
    except Incomplete:
        assert size is not None and size > len(content)
        return "incomplete"
    assert all(entry.end <= (size or len(content)) for entry in header.tensors.values())
    return "opened"


RICH = CORPUS.file(
    [
        CORPUS.pair("general.architecture", 8, CORPUS.text("llama")),
        CORPUS.pair("general.alignment", 4, b"\x20\0\0\0"),
        CORPUS.array("tokens", 8, 3, CORPUS.text("a") + CORPUS.text("") + CORPUS.text("\u2581b")),
        CORPUS.array("scores", 6, 2, bytes(8)),
        CORPUS.pair("flag", 7, b"\1"),
    ],
    [CORPUS.tensor("a", (32,), 2), CORPUS.tensor("b", (2, 2), offset=32)],
)
EDITS = st.lists(
    st.tuples(
        st.integers(0, len(RICH) - 1),
        st.sampled_from([1, 4, 8]),
        st.sampled_from([0, 1, 2, 7, 8, 9, 10, 255, 1 << 31, (1 << 32) - 1, 1 << 62, 1 << 63, (1 << 64) - 1])
        | st.integers(0, (1 << 64) - 1),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EDITS)
@example([(0, 1, 71)])
def test_edited_files(edits: list[tuple[int, int, int]]) -> None:
    content = bytearray(RICH)
    for place, width, value in edits:
        content[place : place + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    outcome(bytes(content[: len(RICH)]))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 1 << 50))
def test_any_bytes(tail: bytes, more: int) -> None:
    assert outcome(b"GGUF\3\0\0\0" + tail) in ("refused", "opened")
    outcome(b"GGUF\3\0\0\0" + tail, 8 + len(tail) + more)


def test_the_file_that_the_edits_begin_with_is_sound() -> None:
    assert outcome(RICH) == "opened"
