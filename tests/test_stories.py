"""A real trained model: the story model of llama2.c with 260 thousand parameters says what its own program says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bestiary

PROMPTS = 7


@pytest.fixture(scope="module")
def pipe(shared_data: Path) -> Iterator[Any]:
    with bestiary.load(str(shared_data / "weights/stories260K/hf"), dtype="float32", progress=False) as pipe:
        yield pipe


@pytest.fixture(scope="module")
def expected(shared_data: Path) -> list[dict[str, Any]]:
    cases = json.loads((shared_data / "weights/stories260K/expected_greedy.json").read_text())
    assert len(cases) == PROMPTS
    return cases


@pytest.mark.parametrize("index", range(PROMPTS))
def test_greedy_tokens_are_the_recorded_ones(pipe: Any, expected: list[dict[str, Any]], index: int) -> None:
    case = expected[index]
    wanted = case["greedy_tokens"]
    made = pipe.generate(case["prompt_tokens"], max_tokens=len(wanted), ignore_eos=True)
    assert list(made.tokens) == wanted


@pytest.mark.parametrize("index", range(PROMPTS))
def test_prompts_tokenize_as_recorded(pipe: Any, expected: list[dict[str, Any]], index: int) -> None:
    assert pipe.tokenize(expected[index]["prompt"]) == expected[index]["prompt_tokens"]


def test_the_single_file_loads_too(shared_data: Path, pipe: Any) -> None:
    path = shared_data / "weights/stories260K/hf/model.safetensors"
    with bestiary.load(str(path), dtype="float32", progress=False) as alone:
        assert alone.generate([1], max_tokens=20).tokens == pipe.generate([1], max_tokens=20).tokens


def test_a_gguf_file_needs_nothing_beside_it(
    shared_data: Path, pipe: Any, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Tokenizer, configuration and weights come from the file alone; one of several is chosen by its type."""
    for name in ("f32", "q8_0"):
        source = shared_data / f"weights/stories260K/gguf/stories260K-{name}.gguf"
        (tmp_path / source.name).write_bytes(source.read_bytes())
    with bestiary.load(str(tmp_path), quant="f32", dtype="float32", progress=False) as whole:
        for case in expected:
            assert whole.tokenize(case["prompt"]) == case["prompt_tokens"]
            wanted = case["greedy_tokens"]
            answer = whole.generate(case["prompt"], max_tokens=len(wanted), ignore_eos=True)
            assert list(answer.tokens) == wanted
            assert whole.detokenize(wanted) == pipe.detokenize(wanted)
        size = whole.nbytes - whole.engine.cache.nbytes
    with bestiary.load(str(tmp_path), quant="q8_0", dtype="float32", progress=False) as packed:
        assert (
            packed.generate("Once upon a time", max_tokens=8).text
            == pipe.generate("Once upon a time", max_tokens=8).text
        )
        assert packed.nbytes - packed.engine.cache.nbytes < 0.5 * size, "the weights were unpacked"
    with pytest.raises(bestiary.BestiaryError, match="f32"):
        bestiary.load(str(tmp_path), progress=False)
