"""Which files are a model, by the names under which models are published."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bestiary.errors import CheckpointError
from bestiary.records import SourceOptions
from bestiary.sources.file import open_file
from bestiary.sources.folder import Folder
from bestiary_quant.gguf.selection import choose, files, models
from bestiary_quant.gguf.selection import chosen as by_bits

MANY = {
    "README.md": 1,
    "Qwen3-0.6B-BF16.gguf": 1_200_000_000,
    "Qwen3-0.6B-Q4_K_M.gguf": 397_000_000,
    "Qwen3-0.6B-Q4_K_S.gguf": 383_000_000,
    "Qwen3-0.6B-UD-Q4_K_XL.gguf": 405_000_000,
    "Qwen3-0.6B-IQ4_NL.gguf": 382_000_000,
    "Qwen3-0.6B-Q8_0.gguf": 639_000_000,
    "imatrix_unsloth.gguf": 2_000_000,
    "mmproj-F16.gguf": 600_000_000,
}
SPLIT = [f"Q8_0/big-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
FOLDERS = {**dict.fromkeys(SPLIT, 10), "UD-Q2_K_XL/big-UD-Q2_K_XL-00001-of-00001.gguf": 5, "big-Q4_0.gguf": 7}


def chosen(sizes: dict[str, int], wanted: str | None = None) -> list[str]:
    return list(choose(sizes, wanted, "here").files)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("q4_k_m", "Qwen3-0.6B-Q4_K_M.gguf"),
        ("Q4_K_S", "Qwen3-0.6B-Q4_K_S.gguf"),
        ("q4_k_xl", "Qwen3-0.6B-UD-Q4_K_XL.gguf"),
        ("ud-q4_k_xl", "Qwen3-0.6B-UD-Q4_K_XL.gguf"),
        ("bf16", "Qwen3-0.6B-BF16.gguf"),
        ("iq4_nl", "Qwen3-0.6B-IQ4_NL.gguf"),
        ("Qwen3-0.6B-Q8_0.gguf", "Qwen3-0.6B-Q8_0.gguf"),
        ("Qwen3-0.6B-Q8_0", "Qwen3-0.6B-Q8_0.gguf"),
        ("mmproj-F16.gguf", "mmproj-F16.gguf"),
    ],
)
def test_a_type_or_a_name_chooses(wanted: str, name: str) -> None:
    assert chosen(MANY, wanted) == [name]


@pytest.mark.parametrize("wanted", ["q4_k", "k_m", "q4", "4_k_m", "q4_k_m.gguf2", "README.md", "", ".*"])
def test_a_part_of_a_word_chooses_nothing(wanted: str) -> None:
    with pytest.raises(CheckpointError):
        choose(MANY, wanted, "here")


def test_without_a_choice_the_error_lists_what_is_there() -> None:
    with pytest.raises(CheckpointError) as caught:
        choose(MANY, None, "here")
    assert caught.value.where == "here"
    assert caught.value.what == (
        "6 models lie here: bf16 (1.20 GB); iq4_nl (0.38 GB); q4_k_m (0.40 GB); q4_k_s (0.38 GB); q8_0 (0.64 GB); "
        "ud-q4_k_xl (0.41 GB)."
    )


def test_a_wrong_choice_names_the_nearest() -> None:
    with pytest.raises(CheckpointError, match='No file is called "q4_k_n"') as caught:
        choose(MANY, "q4_k_n", "here")
    assert "q4_k_m" in str(caught.value.fix) and "q8_0 (0.64 GB)" in caught.value.what


def test_a_choice_of_two_is_none() -> None:
    with pytest.raises(CheckpointError, match='"qwen3" is in the names of 6 models'):
        choose(MANY, "qwen3", "here")


def test_two_models_of_a_type_are_told_apart_by_name() -> None:
    sizes = {"lion-Q4_0.gguf": 1, "tiger-Q4_0.gguf": 2}
    with pytest.raises(CheckpointError, match=re.escape("lion-Q4_0 (0.00 GB); tiger-Q4_0 (0.00 GB)")):
        choose(sizes, None, "here")
    assert chosen(sizes, "tiger") == ["tiger-Q4_0.gguf"]


def test_the_same_type_twice_needs_the_exact_one() -> None:
    sizes = {"lion-Q4_K_M.gguf": 1, "lion-UD-Q4_K_M.gguf": 2}
    assert chosen(sizes, "q4_k_m") == ["lion-Q4_K_M.gguf"]
    assert chosen(sizes, "ud-q4_k_m") == ["lion-UD-Q4_K_M.gguf"]


def test_one_model_needs_no_choice() -> None:
    assert chosen({"a.gguf": 1, "config.json": 1}) == ["a.gguf"]
    assert chosen({"a.gguf": 1, "mmproj-a.gguf": 1, "imatrix.gguf": 1}) == ["a.gguf"]
    assert chosen(dict.fromkeys(reversed(SPLIT), 1)) == SPLIT


@pytest.mark.parametrize("wanted", [*SPLIT, "q8_0", "Q8_0"])
def test_any_part_stands_for_all_in_order(wanted: str) -> None:
    assert chosen(FOLDERS, wanted) == SPLIT
    assert choose(FOLDERS, wanted, "").nbytes == 30


def test_labels_are_short_where_they_can_be() -> None:
    assert [model.label for model in models(FOLDERS)] == ["q8_0", "ud-q2_k_xl", "q4_0"]


def test_missing_parts_are_named_only_where_they_matter() -> None:
    sizes = {name: size for name, size in FOLDERS.items() if name != SPLIT[1]}
    with pytest.raises(CheckpointError, match="Parts of a split model are missing: " + re.escape(SPLIT[1])):
        choose(sizes, "q8_0", "here")
    assert chosen(sizes, "q4_0") == ["big-Q4_0.gguf"]
    with pytest.raises(CheckpointError, match="and 99993 more"):
        choose({"a-00001-of-99999.gguf": 1}, None, "here")


def test_part_numbers_outside_of_their_count_are_no_model() -> None:
    with pytest.raises(CheckpointError, match=re.escape("There is no .gguf file")):
        choose({"a-00004-of-00003.gguf": 1, "b-00001-of-00000.gguf": 1, "c-00000-of-00002.gguf": 1}, None, "here")


def test_nothing_and_only_companions() -> None:
    with pytest.raises(CheckpointError, match=re.escape("There is no .gguf file")):
        choose({"model.safetensors": 1}, None, "here")
    with pytest.raises(CheckpointError, match="only what goes with one: f16"):
        choose({"mmproj-model-f16.gguf": 1}, None, "here")


def test_folders_and_single_files(tmp_path: Path, repository: Callable[[], Folder]) -> None:
    for name in ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"x")
    assert files(repository(), "b") == ("b.gguf",)
    assert files(open_file(str(tmp_path / "b.gguf"), SourceOptions())) == ("b.gguf",)
    both = ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf")
    assert files(open_file(str(tmp_path / both[1]), SourceOptions())) == both


@pytest.mark.parametrize(
    ("bits", "name"),
    [("4", "Qwen3-0.6B-Q4_K_M.gguf"), ("8", "Qwen3-0.6B-Q8_0.gguf")],
)
def test_a_number_of_bits_takes_the_usual_type(
    bits: str, name: str, tmp_path: Path, repository: Callable[[], Folder]
) -> None:
    for other in MANY:
        (tmp_path / other).write_bytes(b"x")
    assert by_bits(repository(), bits) == (name,)
    with pytest.raises(CheckpointError, match='No file is called "6"'):
        by_bits(repository(), "6")


def test_of_one_model_a_number_of_bits_is_how_to_pack_it(tmp_path: Path, repository: Callable[[], Folder]) -> None:
    (tmp_path / "Qwen3-0.6B-BF16.gguf").write_bytes(b"x")
    assert by_bits(repository(), "4") is None
