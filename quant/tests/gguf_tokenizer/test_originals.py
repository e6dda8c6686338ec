"""The tokenizer of a file gives what that of the repository gives, of which the file was made."""

import base64
import json
import lzma
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bestiary.generation.tokenizer import Tokenizer
from bestiary.sources.folder import Folder
from bestiary_quant.gguf.header import parse
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.reading import read_gguf_tokenizer
from bestiary_quant.gguf_tokenizer.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

# fmt: off
ATOMS = (
    "a", "b", "the", "The", "THE", "'s", "'S", "'ll", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "1", "23", "456",
    ".", "...", "!?", "é", "e\u0301", "中", "文字", "ñ", "😀", "👩\u200d👧", "한국", "ไทย", "हिं", "\u3000", "\u00a0",
    "_", "<", "|", ">", "</", "▁", "\x00", "\x01", "\u200b", "ß", "İ", "ſ", "½", "²", "٣", "\ufffd", "(", ")", "{",
    "}", "==", "//", "\x85", "http://x.y", "foo_bar", "CamelCase", "\u2028", "\u1680", "\u202f", "\x0b", "\ufeff",
    "ﬁ", "Ａ", "™",
)
# fmt: on


def texts(*special: str, count: int = 1000) -> Iterator[str]:
    draw = random.Random(7)
    for number in range(count):
        atoms = (*ATOMS, *special * 4) if number % 3 == 0 else ATOMS
        yield "".join(draw.choices(atoms, k=draw.randint(1, 14)))


def assert_equal(made: Tokenizer, original: Tokenizer, *special: str, whole: bool = True) -> None:
    for text in texts(*special):
        ids = original.encode(text, add_special_tokens=whole)
        assert made.encode(text, add_special_tokens=whole) == ids
        plain = original.encode(text, add_special_tokens=whole, allow_special=False)
        assert made.encode(text, add_special_tokens=whole, allow_special=False) == plain
        if not original.clean_up:
            assert made.decode(ids) == original.decode(ids)
            assert made.decode(ids, skip_special_tokens=False) == original.decode(ids, skip_special_tokens=False)


def test_llama_2(vocabulary_file: Callable[[str], Metadata], original: Callable[[str], Folder]) -> None:
    made = read_gguf_tokenizer(vocabulary_file("llama-spm"))
    theirs = Tokenizer.from_repository(original("llama2"))
    assert made.same_tokens(theirs)
    assert made.special_tokens == theirs.special_tokens
    # Its "</s>" is found in the middle of a text neither before nor after normalization: left out here.
    assert_equal(made, theirs)


def test_phi_3(vocabulary_file: Callable[[str], Metadata], original: Callable[[str], Folder]) -> None:
    made = read_gguf_tokenizer(vocabulary_file("phi-3"))
    theirs = Tokenizer.from_repository(original("phi-3-mini"))
    assert made.same_tokens(theirs)
    assert made.special_tokens == theirs.special_tokens
    assert made.special_texts() == theirs.special_texts()
    # The file puts <s> before a text, and the repository does not.
    assert_equal(made, theirs, *theirs.special_texts(), "</s>", whole=False)


def test_qwen_2(vocabulary_file: Callable[[str], Metadata], original: Callable[[str], Folder]) -> None:
    made = read_gguf_tokenizer(vocabulary_file("qwen2"))
    theirs = Tokenizer.from_repository(original("qwen2-qwen3"))
    # The repository is of later models, which have tokens more.
    assert [made.token(place) for place in range(made.vocab_size)] == [
        theirs.token(place) for place in range(made.vocab_size)
    ]
    assert_equal(made, theirs, "<|endoftext|>", "<|im_start|>", "<|im_end|>")


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_stories(kind: str, shared_data: Path) -> None:
    folder = shared_data / "weights/stories260K"
    content = (folder / f"gguf/stories260K-{kind}.gguf").read_bytes()
    made = read_gguf_tokenizer(parse(content, len(content), "stories").metadata)
    theirs = Tokenizer.from_repository(Folder(folder / "hf", "stories"))
    assert made.same_tokens(theirs)
    assert made.special_tokens == theirs.special_tokens
    assert_equal(made, theirs, "<s>", "</s>")


def test_phi_2(original: Callable[[str], Folder], written: Callable[..., Metadata]) -> None:
    """Byte-level, with rows of spaces as added tokens, written as llama.cpp's converter does (get_vocab_base)."""
    repository = original("phi-2")
    state = json.loads(repository.path("tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"]: token for token in state["added_tokens"]}
    tokens = {place: token for token, place in state["model"]["vocab"].items()}
    tokens |= {place: token["content"] for place, token in added.items()}
    rows = 51200
    types = [
        (CONTROL if added[place]["special"] else USER_DEFINED)
        if place in added
        else NORMAL
        if place in tokens
        else UNUSED
        for place in range(rows)
    ]
    made = read_gguf_tokenizer(
        written(
            "gpt2",
            [tokens.get(place, f"[PAD{place}]") for place in range(rows)],
            types,
            merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]],
            more={"pre": "phi-2", "bos_token_id": 50256, "eos_token_id": 50256, "add_bos_token": False},
        )
    )
    theirs = Tokenizer.from_repository(repository)
    assert made.same_tokens(theirs)
    assert_equal(made, theirs, "<|endoftext|>", "     ", "\t\t\t")


def test_t5(original: Callable[[str], Folder], written: Callable[..., Metadata], shared_data: Path) -> None:
    """Unigram, written as the converter of llama.cpp does (conversion/t5.py), without the tokens for gaps."""
    repository = original("t5-small")
    state = json.loads(repository.path("tokenizer.json").read_text(encoding="utf-8"))
    pieces = state["model"]["vocab"][:32000]
    made = read_gguf_tokenizer(
        written(
            "t5",
            [piece for piece, _ in pieces] + [f"[PAD{place}]" for place in range(32000, 32128)],
            [CONTROL, CONTROL, UNKNOWN] + [NORMAL] * 31997 + [UNUSED] * 128,
            [score for _, score in pieces] + [-10000.0] * 128,
            more={
                "add_space_prefix": True,
                "remove_extra_whitespaces": True,
                "add_eos_token": True,
                "eos_token_id": 1,
                "padding_token_id": 0,
                "unknown_token_id": 2,
                "precompiled_charsmap": base64.b64decode(state["normalizer"]["precompiled_charsmap"]),
            },
        )
    )
    theirs = Tokenizer.from_repository(repository)
    assert {role: theirs.special_tokens[role] for role in made.special_tokens} == made.special_tokens
    assert_equal(made, theirs, "</s>", "<pad>", "<unk>")
    cases = json.loads((shared_data / "tokenizers/encoded/transformers.js/t5.json").read_text())["Xenova/t5-small"]
    assert all(made.encode(case["text"]) == case["ids"] for case in cases.values() if "text_pair" not in case)


def test_mistral(original: Callable[[str], Folder], written: Callable[..., Metadata], shared_data: Path) -> None:
    """Merges from scores, of a model of SentencePiece as its authors publish it."""
    path = shared_data / "tokenizers/mistral-common/tokenizer.model.v1.model.xz"
    tokens, scores, types = zip(*_pieces(lzma.decompress(path.read_bytes())), strict=True)
    more = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "add_bos_token": True, "add_eos_token": False}
    made = read_gguf_tokenizer(written("llama", tokens, types, scores, more=more))
    theirs = Tokenizer.from_repository(original("mistral-7b-instruct-v0.2"))
    assert made.same_tokens(theirs)
    assert made.special_tokens == theirs.special_tokens
    assert_equal(made, theirs, "<s>", "</s>", "<unk>")


def _pieces(content: bytes) -> Iterator[tuple[str, float, int]]:
    """Piece, score and type of every entry of a ModelProto (google/sentencepiece, src/sentencepiece_model.proto)."""
    for field, value in _fields(content):
        if field == 1 and isinstance(value, bytes):
            entry = dict(_fields(value))
            piece, score, kind = entry[1], entry.get(2, bytes(4)), entry.get(3, NORMAL)
            assert isinstance(piece, bytes) and isinstance(score, bytes) and isinstance(kind, int)
            assert kind in (NORMAL, UNKNOWN, CONTROL, BYTE)
            yield piece.decode(), struct.unpack("<f", score)[0], kind


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0

    def number() -> int:
        nonlocal at
        found = shift = 0
        while True:
            byte = content[at]
            at += 1
            found |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return found

    while at < len(content):
        key = number()
        value: int | bytes
        if key & 7 == 0:
            value = number()
        else:
            length = {1: 8, 2: None, 5: 4}[key & 7]
            length = number() if length is None else length
            value = content[at : at + length]
            at += length
        yield key >> 3, value
