"""Hostile importance matrices end in the project's own error, soon and in little memory, whatever they announce."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from neighbours import beside, outcomes_in_a_process

from bestiary.errors import CheckpointError
from bestiary_quant.calibration.files import read_importance

CORPUS = beside(__file__)
CASES = list(CORPUS.cases())
ERROR = "bestiary.errors.CheckpointError: "


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return outcomes_in_a_process(__file__, tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case.name for case in CASES])
def test_case(number: int, outcomes: Any) -> None:
    (outcome, seconds), says = outcomes["cases"][number], CASES[number].says
    assert seconds < 1
    if says is None:
        assert outcome == "read"
        return
    assert outcome.startswith(ERROR) and says in outcome, outcome
    assert CASES[number].file in outcome and len(outcome) < 1500
    assert "\0" not in outcome and "\x1b" not in outcome


def test_every_beginning_of_a_sound_file_is_refused(outcomes: Any) -> None:
    """But that of the older form which ends with the weights, as the oldest files do, and with the calls."""
    whole = len(CORPUS.SOUND)
    fine = {("a.dat", whole - 12), ("a.dat", whole - 8)}
    for name, length, outcome, seconds in outcomes["beginnings"]:
        assert outcome.startswith("read" if (name, length) in fine else ERROR), (name, length, outcome)
        assert seconds < 1


@settings(max_examples=300)
@given(
    st.sampled_from([("a.dat", CORPUS.SOUND), ("a.cimatrix", CORPUS.KEYED), ("a.gguf", CORPUS.NEWER)]),
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from([1, 4, 8]), st.integers(0, (1 << 64) - 1)), max_size=4),
)
def test_edited_files(file: tuple[str, bytes], edits: list[tuple[int, int, int]]) -> None:
    name, content = file[0], bytearray(file[1])
    for place, width, value in edits:
        at = place % len(file[1])
        content[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(bytes(content))
        try:
            read_importance(path)
        except CheckpointError as error:
            assert len(str(error)) < 3000
