"""UQFF through `bestiary.load`, as a loader among others."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import bestiary
from bestiary.errors import CheckpointError
from bestiary.records import Loader
from bestiary.registry import Plugin, Registry, default_registry
from bestiary_quant.uqff import selection

LOADER = bestiary.Loader(
    "uqff",
    (".uqff",),
    selection.sniff,
    "bestiary_quant.uqff.selection:files",
    "bestiary_quant.uqff.checkpoint:open",
    headers="bestiary_quant.uqff.checkpoint:open_header",
    choose="bestiary_quant.uqff.selection:chosen",
    priority=20,  # residual.safetensors is no model
)


@pytest.fixture(scope="module")
def registry() -> Registry:
    """All plugins, and the loader where none of them brings it yet."""
    known = default_registry()
    if any(loader.name == "uqff" for loader, _ in known.records(Loader)):
        return known
    return Registry((*known.plugins, Plugin("uqff", "test", "1", "test", (LOADER,))), known.manager)


@pytest.fixture
def both(data: Path, tmp_path: Path) -> Path:
    """One folder with two models, which share its residual."""
    shutil.copytree(data / "codes", tmp_path / "both")
    shutil.copyfile(data / "blocks" / "blocks-0.uqff", tmp_path / "both" / "blocks-0.uqff")
    return tmp_path / "both"


@pytest.mark.parametrize("quant", ["codes", "blocks"])
def test_a_model_is_chosen_and_answers(
    quant: str, both: Path, data: Path, registry: Registry, references: dict[str, Any]
) -> None:
    with bestiary.load(str(both), registry=registry, dtype="float32", quant=quant) as pipe:
        answer = pipe.generate(references["prompt"], max_tokens=8, temperature=0.0)
    expected = [step[0][0] for step in references["answers"][quant]][:8]
    from tokenizers import Tokenizer

    assert answer.text == Tokenizer.from_file(str(both / "tokenizer.json")).decode(expected)


def test_without_a_choice(both: Path, registry: Registry) -> None:
    with pytest.raises(CheckpointError, match=r"2 models lie here: blocks .*; codes"):
        bestiary.load(str(both), registry=registry)
