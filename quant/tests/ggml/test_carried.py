"""The tokenizer of a file, against those of the models whose vocabularies were written into it."""

import lzma
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bestiary.errors import CheckpointError, TokenizerError
from bestiary.sources.folder import Folder
from bestiary_quant.ggml.carried import carried_text
from bestiary_quant.gguf.header import parse
from bestiary_quant.gguf_tokenizer.reading import read_gguf_tokenizer

HEAD = [" \u2047 ".encode(), b"", b"", *(bytes([value]) for value in range(256))]
PIECES = {" a": -1.0, "ab": -0.5, " ab": -2.0, "a": -3.0, "b": -4.0, " ": -5.0}
Vocabulary = Callable[..., Folder]


@pytest.fixture
def vocabulary(tmp_path: Path, writing: ModuleType, repository: Callable[[], Folder]) -> Vocabulary:
    """Writes a file of a vocabulary and of the smallest weights."""

    def write(
        tokens: Sequence[bytes], scores: Sequence[float], version: tuple[str, int] = ("ggjt", 3), name: str = "a.bin"
    ) -> Folder:
        tensors = [writing.Tensor(f"{base}.weight", (1,), 0, bytes(4)) for base in writing.MODEL.values()]
        tensors += [writing.Tensor(f"layers.0.{base}.weight", (1,), 0, bytes(4)) for base in writing.LAYER.values()]
        sizes = (len(tokens), 1, 256, 1, 1, 1, 0)
        writing.Written(version, sizes, tokens, scores, tensors).write(tmp_path / name)
        return repository()

    return write


def small(vocabulary: Vocabulary, added: dict[str, float] | None = None, **changes: Any) -> Any:
    pieces = {**PIECES, **(added or {})}
    tokens = [*HEAD, *(piece.encode() for piece in pieces)]
    return vocabulary(tokens, [0.0] * 259 + list(pieces.values()), **changes)


@pytest.mark.parametrize("version", [("ggmf", 1), ("ggjt", 1), ("ggjt", 2), ("ggjt", 3)])
def test_pieces_and_bytes(version: tuple[str, int], vocabulary: Vocabulary) -> None:
    found = carried_text(small(vocabulary, version=version), "a.bin")
    tokenizer = found.tokenizer
    tokens = [tokenizer.token(place) for place in tokenizer.encode("ab aé\n")]
    assert tokens == ["<s>", "▁ab", "▁a", "<0xC3>", "<0xA9>", "<0x0A>"]
    assert tokenizer.decode(tokenizer.encode("ab aé\n")) == "ab aé\n"
    assert found.end_tokens == {2} and not found.chat_templates
    assert tokenizer.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert 2 not in tokenizer.encode("a</s>a", allow_special=False)


def test_added_tokens_are_found_whole(vocabulary: Vocabulary) -> None:
    tokenizer = carried_text(small(vocabulary, {"<|user a|>": -1000.0, "[PAD]": -1000.0}), "a.bin").tokenizer
    assert [tokenizer.token(place) for place in tokenizer.encode("a<|user a|>")] == ["<s>", "▁a", "<|user a|>"]
    assert tokenizer.encode("[PAD]")[-1] == 266


def test_a_text_that_comes_twice(vocabulary: Vocabulary) -> None:
    """The padding of some vocabularies repeats a token, which leaves the first as it is."""
    tokenizer = carried_text(small(vocabulary, {"</s>": -1000.0, "<0x41>": -7.0}), "a.bin").tokenizer
    assert tokenizer.token(2) == "</s>" and tokenizer.encode("A")[-1] == 3 + 0x41


def test_llama(shared_data: Path, vocabulary: Vocabulary) -> None:
    """The vocabulary of Llama, written as convert.py wrote it, cuts texts as llama.cpp does, and as its GGUF file."""
    folder = shared_data / "tokenizers/gguf-vocab"
    content = lzma.decompress((folder / "llama-spm.gguf.xz").read_bytes())
    metadata = parse(content, len(content), "llama-spm.gguf").metadata
    texts, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    tokens = [*HEAD, *(text.replace("\u2581", " ").encode() for text in texts[259:])]  # type: ignore[index]
    made = carried_text(vocabulary(tokens, list(scores)), "a.bin").tokenizer  # type: ignore[call-overload]
    assert made.same_tokens(read_gguf_tokenizer(metadata))
    asked = (folder / "llama-spm.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    answers = (folder / "llama-spm.gguf.out").read_text().split("\n")[: len(asked)]
    assert len(answers) == len(asked) == 47
    for text, answer in zip(asked, answers, strict=True):
        assert made.encode(text, add_special_tokens=False) == [int(part) for part in answer.split()], text


@pytest.mark.parametrize("case", ["no scores", "zeros"])
def test_without_scores_there_is_no_tokenizer(
    case: str, vocabulary: Vocabulary, tmp_path: Path, shared_data: Path
) -> None:
    tokens = [*HEAD, *(piece.encode() for piece in PIECES)]
    version = ("ggml", 0) if case == "no scores" else ("ggjt", 3)
    found = vocabulary(tokens, [0.0] * len(tokens), version)
    with pytest.raises(TokenizerError, match="has no scores of its tokens") as caught:
        carried_text(found, "a.bin")
    assert "tok_model_id" in str(caught.value.fix)
    shutil.copy(shared_data / "weights/stories260K/hf/tokenizer.json", tmp_path)
    beside = carried_text(Folder(tmp_path, "test"), "a.bin").tokenizer
    assert beside.encode("Once upon a time", add_special_tokens=False) == [403, 407, 261, 378]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({259: b"\xff\xfe"}, "Token 259 is not UTF-8"),
        ({5: b"\xff\xfe"}, "Token 5 is not UTF-8"),
    ],
)
def test_tokens_that_are_no_text(change: dict[int, bytes], says: str, vocabulary: Vocabulary) -> None:
    tokens = [*HEAD, b"a"]
    for place, token in change.items():
        tokens[place] = token
    with pytest.raises(TokenizerError, match=says):
        carried_text(vocabulary(tokens, [-1.0] * len(tokens)), "a.bin")


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers(score: float, vocabulary: Vocabulary) -> None:
    with pytest.raises(TokenizerError, match="finite"):
        carried_text(vocabulary([*HEAD, b"a"], [0.0] * 259 + [score]), "a.bin")


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_vocabulary_too_small_for_its_roles(count: int, vocabulary: Vocabulary) -> None:
    found = vocabulary(HEAD[:count], [-1.0] * count)
    try:
        assert carried_text(found, "a.bin").tokenizer.token(0) == "<unk>"
    except (TokenizerError, CheckpointError):
        assert count < 3


def test_the_writer_writes_bytes_in_order(vocabulary: Vocabulary, tmp_path: Path) -> None:
    """The first record of a vocabulary, as struct reads it: what the tests above stand on."""
    small(vocabulary)
    assert struct.unpack_from("<7I", (tmp_path / "a.bin").read_bytes(), 8)[0] == 265
    assert struct.unpack_from("<I5sf", (tmp_path / "a.bin").read_bytes(), 36) == (5, " \u2047 ".encode(), 0.0)
