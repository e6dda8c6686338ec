"""Which files are a model, by the names that mistral.rs gives and by uqff_report.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from bestiary.errors import CheckpointError, ConfigError
from bestiary.sources.folder import Folder
from bestiary_quant.uqff.selection import choose, chosen, files, models, sniff

MANY = {
    "README.md": 1,
    "config.json": 1,
    "residual.safetensors": 500_000_000,
    "q4k-0.uqff": 10_000_000_000,
    "q4k-1.uqff": 400_000_000,
    "q8_0-0.uqff": 18_000_000_000,
    "afq4-0.uqff": 9_000_000_000,
    "afq8-0.uqff": 18_000_000_000,
    "phi3.5-mini-instruct-f8e4m3.uqff": 4_000_000_000,
}


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("q4k", ["q4k-0.uqff", "q4k-1.uqff"]),
        ("Q4_K", ["q4k-0.uqff", "q4k-1.uqff"]),
        ("q4k-1.uqff", ["q4k-0.uqff", "q4k-1.uqff"]),
        ("4", ["q4k-0.uqff", "q4k-1.uqff"]),
        ("8", ["q8_0-0.uqff"]),
        ("AFQ8", ["afq8-0.uqff"]),
        ("f8e4m3", ["phi3.5-mini-instruct-f8e4m3.uqff"]),
        ("phi3.5-mini-instruct-f8e4m3", ["phi3.5-mini-instruct-f8e4m3.uqff"]),
    ],
)
def test_a_type_or_a_name_chooses(wanted: str, names: list[str]) -> None:
    assert list(choose(MANY, wanted, "here").files) == [*names, "residual.safetensors"]


def test_bits_choose_afq_where_there_is_no_other() -> None:
    sizes = {name: 1 for name in MANY if not name.startswith("q")}
    assert choose(sizes, "4", "here").shards == ("afq4-0.uqff",)


@pytest.mark.parametrize("wanted", ["q4", "k", "", ".*", "README.md", "5", "q4k-2.uqff", "x" * 100_000])
def test_a_part_of_a_word_chooses_nothing(wanted: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        choose(MANY, wanted, "here")
    assert len(str(caught.value)) < 1000


def test_without_a_choice_the_error_lists_what_is_there() -> None:
    with pytest.raises(CheckpointError, match=r"5 models lie here: afq4 \(9\.50 GB\); afq8 .*; q4k \(10\.90 GB\);"):
        choose(MANY, None, "here")
    with pytest.raises(CheckpointError, match=r"no \.uqff file"):
        choose({"a.gguf": 1}, None, "here")
    with pytest.raises(CheckpointError) as caught:
        choose(MANY, "q4_k_m", "here")
    assert "q4k" in str(caught.value.fix)


def test_what_is_missing() -> None:
    with pytest.raises(CheckpointError, match=r"missing: residual\.safetensors"):
        choose({"q4k-0.uqff": 1}, None, "here")
    with pytest.raises(CheckpointError, match=r"missing: q4k-0\.uqff, q4k-2\.uqff"):
        choose({"q4k-1.uqff": 1, "q4k-3.uqff": 1, "residual.safetensors": 1}, None, "here")
    far = models({"q4k-99999.uqff": 1, "residual.safetensors": 1})
    assert len(far[0].missing) <= 1001


def test_shards_are_in_the_order_of_their_numbers() -> None:
    sizes = {f"q4k-{number}.uqff": 1 for number in range(12)} | {"residual.safetensors": 1}
    assert choose(sizes, None, "here").shards == tuple(f"q4k-{number}.uqff" for number in range(12))


def test_the_residual_lies_beside_its_shards() -> None:
    sizes = {"a/q4k-0.uqff": 1, "a/residual.safetensors": 1, "b/q4k-0.uqff": 1, "residual.safetensors": 1}
    assert choose(sizes, "a/q4k-0.uqff", "here").files == ("a/q4k-0.uqff", "a/residual.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: b/residual\.safetensors"):
        choose(sizes, "b/q4k-0.uqff", "here")


def folder(place: Path, report: Any = None) -> Folder:
    for name in ("part-a.uqff", "part-b.uqff", "afq4-0.uqff", "residual.safetensors"):
        (place / name).write_bytes(b"x")
    if report is not None:
        (place / "uqff_report.json").write_text(json.dumps(report))
    return Folder(place, "test")


def test_a_report_joins_shards_of_any_name(tmp_path: Path) -> None:
    made = folder(tmp_path, {"outputs": [{"quant": "q8_0", "shards": ["part-b.uqff", "part-a.uqff"]}]})
    for wanted in ("q8_0", "part-a.uqff", "8"):
        assert files(made, wanted) == ("part-b.uqff", "part-a.uqff", "residual.safetensors")
    assert files(made, "afq4") == ("afq4-0.uqff", "residual.safetensors")
    assert chosen(made, "q8_0") == files(made, "q8_0")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"outputs":' * 50_000, "", "[]", "\xff"])
def test_a_report_that_is_no_json(content: str, tmp_path: Path) -> None:
    made = folder(tmp_path)
    (tmp_path / "uqff_report.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError):
        files(made, "afq4")


def test_models_of_a_report_that_are_not_here(tmp_path: Path) -> None:
    outputs = [{"quant": "q8_0", "shards": ["part-a.uqff", "part-c.uqff"]}, {"quant": "q2k", "shards": ["../b.uqff"]}]
    made = folder(tmp_path, {"outputs": outputs})
    with pytest.raises(CheckpointError, match=r"missing: part-c\.uqff"):
        files(made, "q8_0")
    with pytest.raises(CheckpointError, match='No file is called "q2k"'):
        files(made, "q2k")


def test_one_model_may_be_packed_anew(tmp_path: Path) -> None:
    for name in ("q4k-0.uqff", "residual.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    assert chosen(Folder(tmp_path, "test"), "q8_0") is None
    assert chosen(Folder(tmp_path, "test"), "Q4_K") == ("q4k-0.uqff", "residual.safetensors")


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ({}, '"outputs" is {}'),
        ([3], '"quant" of an output is None'),
        ([{"quant": "", "shards": []}], "\"quant\" of an output is ''"),
        ([{"quant": "q4k", "shards": []}], "\"shards\" of 'q4k' is []"),
        ([{"quant": "q4k", "shards": "part-a.uqff"}], '"shards" of'),
        ([{"quant": "q4k", "shards": [["part-a.uqff"]]}], "lists the shard"),
        ([{"quant": "q4k", "shards": ["residual.safetensors"]}], "lists the shard"),
        ([{"quant": "q4k", "shards": ["part-a.uqff", "part-a.uqff"]}], "that no other model has"),
        (
            [{"quant": "q4k", "shards": ["part-a.uqff"]}, {"quant": "Q4K", "shards": ["part-b.uqff"]}],
            "a name of its own is due",
        ),
    ],
)
def test_a_report_that_is_none(outputs: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        files(folder(tmp_path, {"outputs": outputs}), "q4k")
    assert says in caught.value.what and "uqff_report.json" in str(caught.value.where)


def test_sniff() -> None:
    assert sniff("q4k-0.uqff", b"\x10\0\0\0\0\0\0\0{") and not sniff("model.safetensors", b"\x10\0\0\0\0\0\0\0{")
