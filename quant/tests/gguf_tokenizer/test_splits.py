"""Texts are cut where llama.cpp, or the model's own tokenizer, cuts them."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Regex, pre_tokenizers
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from bestiary.errors import TokenizerError
from bestiary_quant.gguf_tokenizer.splits import DEFAULT, SPLITS, find_split

RECORDED: Any = json.loads(Path(__file__).with_name("splits.json").read_text())
"""What llama.cpp 0c1e57098 makes of texts: the lengths of the pieces, and none where it says that it deviates."""
GROUPS = {name: group for group in RECORDED["groups"] for name in group["names"]}


def cut(patterns: tuple[str, ...], text: str) -> list[str]:
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return [piece for piece, _ in pre_tokenizers.Sequence(cuts).pre_tokenize_str(text)]


def test_every_way_is_recorded() -> None:
    assert GROUPS.keys() == SPLITS.keys()


@pytest.mark.parametrize("name", sorted(SPLITS))
def test_recorded(name: str) -> None:
    group, split = GROUPS[name], SPLITS[name]
    assert (split.whole, split.add_bos) == (group["whole"], group["add_bos"])
    for text, lengths in zip(RECORDED["texts"], group["lengths"], strict=True):
        if lengths is not None:
            assert [len(piece) for piece in cut(split.patterns, text)] == lengths, text


@pytest.mark.parametrize("name", sorted(GGUF_PRE_TOKENIZER_SPLITS))
def test_transformers(name: str) -> None:
    for text in RECORDED["texts"]:
        assert cut(SPLITS[name].patterns, text) == cut((GGUF_PRE_TOKENIZER_SPLITS[name],), text)


OWN = {
    "youtu": {"camelCase ЖжЖ": ["camel", "Case", " Жж", "Ж"]},
    "granite-embed-multi-97m": {"camelCase ЖжЖ": ["camel", "Case", " Жж", "Ж"]},
    "kimi-k2": {"camelCase ЖжЖ": ["camel", "Case", " Жж", "Ж"], "नमस्ते中文": ["नमस्ते", "中文"]},
    "tiny_aya": {"camelCase ЖжЖ": ["camel", "Case", " Жж", "Ж"], "1314151天": ["131", "415", "1", "天"]},
    "cohere2moe": {"1314151 天": ["1", "314", "151", " 天"]},
}
"""By the expressions of the models' own files, which llama.cpp quotes and simplifies."""


def test_nothing_is_left_out_unseen() -> None:
    deviating = {name for name, group in GROUPS.items() if None in group["lengths"]}
    assert deviating == {*OWN, *GGUF_PRE_TOKENIZER_SPLITS} & deviating


@pytest.mark.parametrize("name", sorted(OWN))
def test_own(name: str) -> None:
    for text, pieces in OWN[name].items():
        assert cut(SPLITS[name].patterns, text) == pieces


@pytest.mark.parametrize(
    ("name", "endless"),
    [
        ("tiny_aya", r"\d{1,3}(?=(?:\d{3})*\b)"),
        ("superbpe", r"(?=(\d{3})+(?!\d))"),
        ("afmoe", r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"),
    ],
)
def test_numbers_of_300_digits_are_cut_from_their_end(name: str, endless: str) -> None:
    place = 1 if name == "superbpe" else 0
    for length in (1, 2, 3, 4, 5, 6, 299, 300):
        text = "a " + "7" * length
        assert cut(SPLITS[name].patterns[place : place + 1], text) == cut((endless,), text)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (transformers.Qwen2Tokenizer, "qwen2 deepseek-r1-qwen megrez"),
        (transformers.Qwen3_5Tokenizer, "qwen35"),
        (transformers.CohereTokenizer, "command-r tiny_aya cohere2moe"),
        (transformers.GPTNeoXTokenizer, "mpt olmo modern-bert"),
        (transformers.GPT2Tokenizer, "gpt-2 phi-2"),
    ],
)
def test_normal_forms(kind: Any, names: str) -> None:
    form = kind(vocab={"a": 0}, merges=[]).backend_tokenizer.normalizer
    for name in names.split():
        assert SPLITS[name].composed == (form is not None and form.normalize_str("e\u0301") == "é")


def test_unknown_ways() -> None:
    assert find_split(None, "file") is DEFAULT
    with pytest.raises(TokenizerError, match="'qwen3'") as caught:
        find_split("qwen3", "file")
    assert "'qwen35'" in str(caught.value)
    with pytest.raises(TokenizerError) as caught:
        find_split("x" * 1_000_000, "file")
    assert len(str(caught.value)) < 500
