"""Damaged files of every method end in the project's own errors, or are read, soon and in little memory."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
OURS = ("bestiary.errors.CheckpointError: ", "bestiary.errors.ConfigError: ")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("hostile")
    done = subprocess.run(
        [sys.executable, str(HERE / "child.py"), str(folder)], capture_output=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)


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
