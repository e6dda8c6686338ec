"""Pipelines made of parts: which repository holds which, and what weights without a configuration are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pluggy
import pytest
from safetensors.numpy import save_file

from bestiary.builtin import bestiary_loaders, bestiary_sources
from bestiary.errors import CheckpointError, ConfigError, ContestedModel, MissingPlugin, ModelNotFound, OptionError
from bestiary.identified import Identified, identify_model
from bestiary.parts import check_quant, find_parts, packing_of
from bestiary.records import PART, Architecture, PackingRequest, Part, Record, SourceOptions
from bestiary.registry import Plugin, Registry

HERE = "bestiary_test_parts_of_core"


def describe_denoiser(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    return {"width": shapes["denoise.weight"][0]} if "denoise.weight" in shapes else None


def describe_coder(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    return {"width": shapes["code.weight"][0]} if "code.weight" in shapes else None


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions above by the names in the records."""
    import sys
    from types import ModuleType

    module = ModuleType(HERE)
    module.describe_denoiser, module.describe_coder = describe_denoiser, describe_coder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, HERE, module)


WHOLE = Architecture(
    "PaintPipeline",
    "image",
    "nowhere:build",
    parts=(
        Part("denoiser", ("Denoiser",), usual="org/usual", packs=True),
        Part("coder", ("Coder",)),
        Part("words", (), beside="coder", required=False),
        Part("extra", ("Denoiser", "Coder"), required=False),
    ),
)
DENOISER = Architecture("Denoiser", PART, "nowhere:build", describe=f"{HERE}:describe_denoiser")
CODER = Architecture("Coder", PART, "nowhere:build", describe=f"{HERE}:describe_coder")


def registry(*records: Record) -> Registry:
    core = Plugin("core", "bestiary-core", "1", "bestiary.builtin", (*bestiary_loaders(), *bestiary_sources()))
    given = [Plugin(f"p{n}", f"dist-{n}", "1", f"m{n}", (record,)) for n, record in enumerate(records)]
    return Registry([core, *given], pluggy.PluginManager("bestiary"))


ALL = (WHOLE, DENOISER, CODER)


def identified(path: Path, *records: Record, **options: Any) -> Identified:
    return identify_model(str(path), SourceOptions(offline=True), registry(*(records or ALL)), **options)


def part(folder: Path, name: str, class_name: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "config.json").write_text(json.dumps({"_class_name": class_name, "width": 5}))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    folder = tmp_path / "whole"
    part(folder, "denoiser", "Denoiser")
    part(folder, "coder", "Coder")
    (folder / "words").mkdir()
    (folder / "words/words.txt").write_text("a")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "PaintPipeline"}))
    return folder


def weights(path: Path, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.zeros((3, 2), np.float32)}, path)
    return path


def where(found: Mapping[str, Any]) -> dict[str, str]:
    return {name: each.repository.origin for name, each in found.items()}


def test_folders_of_their_names(whole: Path) -> None:
    found = find_parts(identified(whole))
    assert where(found) == {name: f"{whole}/{name}" for name in ("denoiser", "coder", "words")}
    assert found["coder"].network is not None and found["coder"].network.config.width == 5
    assert found["words"].network is None and found["words"].repository.path("words.txt").read_text() == "a"


def test_what_a_user_gives_counts_first(whole: Path, tmp_path: Path) -> None:
    part(tmp_path, "mine", "Coder")
    found = find_parts(identified(whole), {"coder": str(tmp_path / "mine")})
    assert where(found)["coder"] == str(tmp_path / "mine")
    part(tmp_path, "other/coder", "Coder")
    found = find_parts(identified(whole), {"coder": str(tmp_path / "other")})  # a pipeline that has it
    assert where(found)["coder"] == str(tmp_path / "other/coder")


def test_one_repository_for_all_that_is_missing(whole: Path, tmp_path: Path) -> None:
    part(tmp_path, "half/denoiser", "Denoiser")
    (tmp_path / "half/model_index.json").write_text(json.dumps({"_class_name": "PaintPipeline"}))
    found = find_parts(identified(tmp_path / "half"), str(whole))
    assert where(found)["denoiser"] == str(tmp_path / "half/denoiser")
    assert where(found)["coder"] == str(whole / "coder")
    with pytest.raises(ModelNotFound, match=r"needs the part coder \(Coder\)"):
        find_parts(identified(tmp_path / "half"))


def test_a_part_may_be_left_out(whole: Path) -> None:
    assert "words" not in find_parts(identified(whole), {"words": None})
    index = {"_class_name": "PaintPipeline", "coder": [None, None]}
    (whole / "model_index.json").write_text(json.dumps(index))
    assert "coder" not in find_parts(identified(whole))
    assert "coder" in find_parts(identified(whole), {"coder": str(whole / "coder")})


def test_the_main_part_alone_is_the_pipeline(whole: Path) -> None:
    found = identified(whole / "denoiser")
    assert found.architecture is WHOLE and found.part is DENOISER
    assert where(find_parts(found, str(whole)))["denoiser"] == str(whole / "denoiser")
    with pytest.raises(CheckpointError, match="Coder is a part of other models") as error:
        identified(whole / "coder")
    assert 'parts={"coder": ...}' in str(error.value)


def test_two_pipelines_of_one_main_part_are_a_contest(whole: Path) -> None:
    other = Architecture("DrawPipeline", "image", "nowhere:build", parts=(Part("denoiser", ("Denoiser",)),))
    with pytest.raises(ContestedModel, match="PaintPipeline"):
        identified(whole / "denoiser", *ALL, other)


def test_weights_without_a_configuration(tmp_path: Path, whole: Path) -> None:
    file = weights(tmp_path / "some/file.safetensors", "denoise.weight")
    found = identified(file)
    assert found.architecture is WHOLE and found.part is DENOISER
    network = find_parts(found, str(whole))["denoiser"].network
    assert network is not None and network.config.width == 3 and "file.safetensors" in network.config.origin


def test_files_side_by_side(tmp_path: Path) -> None:
    folder = tmp_path / "loose"
    weights(folder / "a.safetensors", "code.weight")
    weights(folder / "b.safetensors", "denoise.weight")
    found = find_parts(identified(folder))
    assert {name: list(each.repository.files()) for name, each in found.items() if each.part.name != "words"} == {
        "denoiser": ["b.safetensors"],
        "coder": ["a.safetensors"],
        "extra": ["b.safetensors"],
    }


def test_weights_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Nothing here says what the model is"):
        identified(weights(tmp_path / "x/file.safetensors", "other.weight"))


def test_something_else_in_the_place_of_a_part(whole: Path) -> None:
    with pytest.raises(CheckpointError, match="given as the part coder is something else"):
        find_parts(identified(whole), {"coder": str(whole / "denoiser")})


def test_a_part_whose_plugin_is_missing(whole: Path) -> None:
    with pytest.raises(MissingPlugin, match="Coder"):
        find_parts(identified(whole, WHOLE, DENOISER))


@pytest.mark.parametrize("given", [{"codre": "x"}, 3, {"coder": 4}, ["coder"]])
def test_parts_that_cannot_be(whole: Path, given: Any) -> None:
    with pytest.raises(OptionError):
        find_parts(identified(whole), given)


def test_a_request_for_fewer_bits_by_part() -> None:
    denoiser, coder = WHOLE.parts[:2]
    asked = PackingRequest("q8_0", topology={"a": "b"})
    assert packing_of(denoiser, asked) == asked
    assert not packing_of(coder, asked)
    named = PackingRequest({"coder": "q4k"})
    assert packing_of(coder, named) == PackingRequest("q4k")
    assert not packing_of(denoiser, named)
    check_quant(WHOLE, {"coder": "q4k"})
    with pytest.raises(OptionError, match="quant names the part 'words'"):
        check_quant(WHOLE, {"words": "q4k"})
