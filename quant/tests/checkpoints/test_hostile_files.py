"""Damaged files of every method end in the project's own errors, or are read, soon and in little memory."""

from collections import Counter
from typing import Any

import pytest
from neighbours import outcomes_in_a_process

OURS = ("bestiary.errors.CheckpointError: ", "bestiary.errors.ConfigError: ")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return outcomes_in_a_process(__file__, tmp_path_factory.mktemp("hostile"))


def test_every_case_is_read_or_refused(outcomes: Any) -> None:
    others = {case: outcome for case, outcome in outcomes["cases"].items() if not outcome.startswith((*OURS, "read"))}
    assert not others
    assert len(outcomes["cases"]) > 1500


def test_what_is_cut_or_lacks_a_part_is_refused(outcomes: Any) -> None:
    cut = [outcome for case, outcome in outcomes["cases"].items() if ", cut at " in case]
    assert len(cut) >= 400 and not any(outcome == "read" for outcome in cut)
    kinds = Counter(outcome == "read" for case, outcome in outcomes["cases"].items() if ", without " in case)
    assert kinds[False] > kinds[True], "some parts, such as zeros of a symmetric weight, may be absent"


def test_every_case_ends_soon(outcomes: Any) -> None:
    assert outcomes["longest"][0] < 1.0, outcomes["longest"]
