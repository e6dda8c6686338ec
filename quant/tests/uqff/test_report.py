"""What a report says of sound folders and of damaged ones."""

import shutil
from pathlib import Path

import pytest

from bestiary.cli import invoke
from bestiary.errors import CheckpointError
from bestiary_quant.uqff.report import LayerReport, mistralrs_report, report


def test_a_folder_of_mistralrs(data: Path) -> None:
    made = report(data / "q4k", strict=True)
    assert made.problems == () and len(made.models) == 1
    model = made.models[0]
    assert (model.label, model.version, model.plain) == ("q4k", "1.2.0", 6)
    assert model.counts == {"Q4_1": 1, "Q4_K": 6, "Q6_K": 1}
    assert model.layers[0] == LayerReport("model.embed_tokens", "Q6_K", (104, 256), 104 * 210 + 1 + 4 + 8)
    assert model.nbytes == sum((data / "q4k" / name).stat().st_size for name in model.files)


def test_the_report_that_mistralrs_wrote_is_the_same(data: Path) -> None:
    import json

    theirs = json.loads((data / "q4k" / "uqff_report.json").read_text())
    ours = mistralrs_report(data / "q4k")
    assert ours["schema"] == theirs["schema"] and ours["uqff_version"] == theirs["uqff_version"]
    for key in ("quant", "shards", "layers", "actual_counts"):
        assert ours["outputs"][0][key] == theirs["outputs"][0][key]

    def details(given: list[dict[str, object]]) -> dict[object, tuple[object, object]]:
        return {layer["module"]: (layer["stored"], layer["shape"]) for layer in given}

    assert details(ours["outputs"][0]["layer_details"]) == details(theirs["outputs"][0]["layer_details"])


@pytest.fixture
def copied(data: Path, tmp_path: Path) -> Path:
    shutil.copytree(data / "q4k", tmp_path / "q4k")
    return tmp_path / "q4k"


def test_what_is_missing(copied: Path) -> None:
    for name in ("config.json", "tokenizer.json", "residual.safetensors"):
        (copied / name).unlink()
    made = report(copied)
    assert [problem.split()[0] for problem in made.problems] == ["config.json", "No", "q4k:"]
    assert made.models[0].problem == "residual.safetensors missing"
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        report(copied, strict=True)
    assert made.as_json()["models"][0]["label"] == "q4k"


def test_a_shard_that_is_cut_off(copied: Path) -> None:
    shard = copied / "q4k-0.uqff"
    shard.write_bytes(shard.read_bytes()[:-1])
    made = report(copied)
    assert "truncated" in made.models[0].problem and made.problems == (f"q4k: {made.models[0].problem}",)
    with pytest.raises(CheckpointError, match="truncated"):
        report(copied, strict=True)


def test_a_folder_without_any(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no \.uqff file"):
        report(tmp_path)


def test_the_command_prints_models_and_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["quantize", "demo", "--to", "uqff:q4k", "-o", str(tmp_path / "made")]) == 0
    capsys.readouterr()
    assert invoke(["uqff", str(tmp_path / "made"), "--strict"]) == 0
    assert "6 Q4_K, 36 Q5_0, 1 Q8_0" in capsys.readouterr().out
    shard = tmp_path / "made/q4k-0.uqff"
    shard.write_bytes(shard.read_bytes()[:-100])
    assert invoke(["uqff", str(tmp_path / "made")]) == 0
    assert "problem: " in capsys.readouterr().out
    assert invoke(["uqff", str(tmp_path / "made"), "--strict"]) == 1
    assert "q4k-0.uqff" in capsys.readouterr().err
