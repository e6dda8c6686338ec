"""Every vocabulary file of llama.cpp gives the ids that llama.cpp recorded for it, and its texts back."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bestiary.generation.tokenizer import Tokenizer
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.reading import read_gguf_tokenizer
from bestiary_quant.gguf_tokenizer.special import end_ids

# The ids that end an answer, as llama.cpp 0c1e57098 finds them (qwen2: but for 128247, the ordinary piece "</s>").
ENDS = {
    "bert-bge": {0},
    "deepseek-coder": {32014},
    "deepseek-llm": {100001},
    "gemma-4": {1, 50, 106},
    "gpt-2": {50256},
    "llama-bpe": {128001, 128009},
    "llama-spm": {2},
    "mpt": {0},
    "phi-3": {2, 32000, 32007},
    "qwen2": {151643, 151645},
    "starcoder": {0, 4},
}
AROUND = {"bert-bge": ([101], [102]), "deepseek-coder": ([32013], []), "deepseek-llm": ([100000], [])}
AROUND |= {"gemma-4": ([2], []), "llama-bpe": ([128000], []), "llama-spm": ([1], []), "phi-3": ([1], [])}
"""What llama.cpp puts before and after a text."""


@pytest.fixture(scope="module", params=sorted(ENDS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def metadata(name: str, vocabulary_file: Callable[[str], Metadata]) -> Metadata:
    return vocabulary_file(name)


@pytest.fixture(scope="module")
def tokenizer(metadata: Metadata) -> Tokenizer:
    return read_gguf_tokenizer(metadata)


@pytest.fixture(scope="module")
def vectors(name: str, shared_data: Path) -> list[tuple[str, list[int]]]:
    folder = shared_data / "tokenizers/gguf-vocab"
    texts = (folder / f"{name}.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = (folder / f"{name}.gguf.out").read_text().split("\n")
    return [(text, [int(place) for place in line.split()]) for text, line in zip(texts, lines, strict=False)]


def test_ids_and_texts(name: str, tokenizer: Tokenizer, vectors: list[tuple[str, list[int]]]) -> None:
    assert len(vectors) >= 46
    for text, ids in vectors:
        assert tokenizer.encode(text, add_special_tokens=False) == ids
        if name != "bert-bge":  # whose tokens do not know what spaces and capitals were
            assert tokenizer.decode(ids) == text
            assert b"".join(map(tokenizer.token_bytes, ids)).decode().removeprefix(_prefix(name, text)) == text


def _prefix(name: str, text: str) -> str:
    return " " if text and name in ("llama-spm", "phi-3") else ""


def test_what_goes_around_a_text(name: str, tokenizer: Tokenizer) -> None:
    before, after = AROUND.get(name, ([], []))
    plain = tokenizer.encode("Hello", add_special_tokens=False)
    assert tokenizer.encode("Hello") == before + plain + after


def test_ends(name: str, metadata: Metadata) -> None:
    assert end_ids(metadata) == ENDS[name]


def test_words_are_those_of_bert(vocabulary_file: Callable[[str], Metadata], shared_data: Path) -> None:
    tokenizer = read_gguf_tokenizer(vocabulary_file("bert-bge"))
    for text, ids, decoded in _encoded(shared_data, "bert", "Xenova/bert-base-uncased"):
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == decoded


@pytest.mark.parametrize(
    ("name", "file", "model"),
    [
        ("gpt-2", "gpt2", "Xenova/gpt2"),
        ("llama-spm", "llama", "Xenova/llama-tokenizer"),
        ("qwen2", "qwen2", "Xenova/Qwen1.5-0.5B-Chat"),
    ],
)
def test_ids_are_those_of_transformers(
    name: str, file: str, model: str, vocabulary_file: Callable[[str], Metadata], shared_data: Path
) -> None:
    tokenizer = read_gguf_tokenizer(vocabulary_file(name))
    for text, ids, _ in _encoded(shared_data, file, model):
        assert tokenizer.encode(text) == ids


def _encoded(shared_data: Path, file: str, model: str) -> list[tuple[str, list[int], str]]:
    cases = json.loads((shared_data / f"tokenizers/encoded/transformers.js/{file}.json").read_text())[model]
    assert len(cases) > 5
    return [(case["text"], case["ids"], case["decoded"]) for case in cases.values() if "text_pair" not in case]
