"""UQFF through `bestiary.load`, as a loader among others."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import bestiary
from bestiary.errors import CheckpointError


@pytest.fixture
def both(data: Path, tmp_path: Path) -> Path:
    """One folder with two models, which share its residual."""
    shutil.copytree(data / "codes", tmp_path / "both")
    shutil.copyfile(data / "blocks" / "blocks-0.uqff", tmp_path / "both" / "blocks-0.uqff")
    return tmp_path / "both"


@pytest.mark.parametrize("quant", ["codes", "blocks"])
def test_a_model_is_chosen_and_answers(quant: str, both: Path, data: Path, references: dict[str, Any]) -> None:
    with bestiary.load(str(both), dtype="float32", quant=quant) as pipe:
        answer = pipe.generate(references["prompt"], max_tokens=8, temperature=0.0)
    expected = [step[0][0] for step in references["answers"][quant]][:8]
    from tokenizers import Tokenizer

    assert answer.text == Tokenizer.from_file(str(both / "tokenizer.json")).decode(expected)


def test_without_a_choice(both: Path) -> None:
    with pytest.raises(CheckpointError, match=r"2 models lie here: blocks .*; codes"):
        bestiary.load(str(both))
