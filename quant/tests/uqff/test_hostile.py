"""Hostile UQFF folders end in the project's own error, soon and in little memory, whatever their numbers announce."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from neighbours import beside, outcomes_in_a_process

from bestiary.errors import CheckpointError
from bestiary.sources.folder import Folder
from bestiary_quant.uqff import checkpoint, selection

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
    assert len(outcome) < 1500 and "\0" not in outcome and "\x1b" not in outcome


def test_every_case_ends_soon(outcomes: Any) -> None:
    assert outcomes["longest"][0] < 1.0, outcomes["longest"]


def test_beginnings_of_a_sound_shard_are_refused(outcomes: Any) -> None:
    assert set(outcomes["beginnings"]) == {"bestiary.errors.CheckpointError"}


def test_names_of_cases_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


BEGIN = 8 + int.from_bytes(CORPUS.VALID[:8], "little")
EDITS = st.lists(
    st.tuples(
        st.integers(0, len(CORPUS.VALID) - BEGIN - 1),
        st.sampled_from([1, 4]),
        st.sampled_from([0, 1, 2, 3, 4, 6, 8, 12, 32, 64, 255, 1 << 31, (1 << 32) - 1]),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=EDITS)
def test_edited_descriptions(edits: list[tuple[int, int, int]], tmp_path: Path) -> None:
    """Whatever numbers a sound header is followed by: it opens and can be read, or it is refused."""
    content = bytearray(CORPUS.VALID)
    for place, width, value in edits:
        content[BEGIN + place : BEGIN + place + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    (tmp_path / "case-0.uqff").write_bytes(bytes(content[: len(CORPUS.VALID)]))
    (tmp_path / "residual.safetensors").write_bytes(CORPUS.RESIDUAL)
    repository = Folder(tmp_path, "case")
    try:
        opened = checkpoint.open(repository, selection.files(repository))
    except CheckpointError as error:
        assert len(str(error)) < 1500
        return
    for name in opened.names():
        assert opened.read(name).numel() < 10_000
    opened.close()
