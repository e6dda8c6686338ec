"""Each kind of model, on vocabularies of a few tokens, against what its definition gives by hand or plain Python."""

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers.tokenization_utils_base import generate_merges

from bestiary.generation.tokenizer import Tokenizer
from bestiary_quant.gguf.header import parse
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.merges import merges_from_scores, read_merges
from bestiary_quant.gguf_tokenizer.reading import read_gguf_tokenizer
from bestiary_quant.gguf_tokenizer.splits import SPLITS
from bestiary_quant.gguf_tokenizer.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary
from bestiary_quant.gguf_tokenizer.words import respelled

BYTES = [f"<0x{value:02X}>" for value in range(256)]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
SPM_HEAD = ["<unk>", "<s>", "</s>", *BYTES]
SPM_TYPES = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]


def spm(written: Callable[..., Metadata], pieces: dict[str, float], more: dict[str, Any] | None = None) -> Tokenizer:
    return read_gguf_tokenizer(
        written(
            "llama",
            [*SPM_HEAD, *pieces],
            [*SPM_TYPES, *[NORMAL] * len(pieces)],
            [*[0.0] * len(SPM_HEAD), *pieces.values()],
            more=more,
        )
    )


def test_sentencepiece(written: Callable[..., Metadata]) -> None:
    tokenizer = spm(written, {"▁a": -1.0, "ab": -0.5, "▁ab": -2.0, "a": -3.0, "b": -4.0, "▁": -5.0})
    tokens = [tokenizer.token(place) for place in tokenizer.encode("ab aé")]
    assert tokens == ["<s>", "▁ab", "▁a", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode(" ab")) == " ab"
    # A control token never comes out of a text of strangers, and every text behind one begins with a space.
    assert [tokenizer.token(place) for place in tokenizer.encode("a</s>a")] == ["<s>", "▁a", "</s>", "▁a"]
    assert 2 not in tokenizer.encode("a</s>a", allow_special=False)


def test_pieces_without_a_type_merge(written: Callable[..., Metadata]) -> None:
    tokens, types = [*SPM_HEAD[:3], "▁", "a", "▁a"], [*SPM_TYPES[:3], 0, 0, 0]
    tokenizer = read_gguf_tokenizer(written("llama", tokens, types, [0.0] * 6))
    assert tokenizer.encode("a") == [1, 5]


def test_sentencepiece_without_bytes(written: Callable[..., Metadata]) -> None:
    tokenizer = read_gguf_tokenizer(
        written("llama", [*SPM_HEAD[:3], "▁", "a"], [*SPM_TYPES[:3], NORMAL, NORMAL], [0.0] * 5)
    )
    assert [tokenizer.token(place) for place in tokenizer.encode("aéña")] == ["<s>", "▁", "a", "<unk>", "a"]


def test_sentencepiece_without_a_first_space(written: Callable[..., Metadata]) -> None:
    more = {"add_space_prefix": False, "add_bos_token": False, "add_eos_token": True}
    tokenizer = spm(written, {"▁a": -1.0, "a": -3.0, "▁": -5.0}, more)
    assert [tokenizer.token(place) for place in tokenizer.encode("a a")] == ["a", "▁a", "</s>"]
    assert tokenizer.decode(tokenizer.encode(" a")) == " a"


def greedy(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's BPE (llama.cpp, llm_tokenizer_spm_session): the best score first, of equal ones the leftmost."""
    parts = list(text)
    while True:
        found = [(-scores[both], at) for at in range(len(parts) - 1) if (both := parts[at] + parts[at + 1]) in scores]
        if not found:
            return parts
        at = min(found)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@settings(max_examples=300, deadline=None)
@given(st.sets(st.text("abc", min_size=2, max_size=4), max_size=25), st.randoms(), st.text("abc", max_size=20))
def test_merges_from_scores_are_those_of_sentencepiece(pieces: set[str], draw: Any, text: str) -> None:
    # Which end of a row such as "aaa" merges first depends on its neighbours, which ranks cannot say.
    ordered = [*"abc", *sorted(piece for piece in pieces if len(set(piece)) > 1 and not _overlaps(piece))]
    rest = ordered[3:]
    draw.shuffle(rest)
    scores = {piece: -float(number) for number, piece in enumerate([*"abc", *rest])}
    ids = {piece: place for place, piece in enumerate(ordered)}
    backend = Backend(models.BPE(ids, merges_from_scores([scores[piece] for piece in ordered], ids, "file")))
    assert backend.encode(text).tokens == greedy(text, scores)


@settings(max_examples=200, deadline=None)
@given(st.sets(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=25), st.randoms())
def test_merges_from_scores_are_those_of_transformers(pieces: set[str], draw: Any) -> None:
    ordered = sorted(pieces)
    draw.shuffle(ordered)
    scores = draw.sample(range(100), len(ordered))
    ids = {piece: place for place, piece in enumerate(ordered)}
    theirs = generate_merges(ids, dict(zip(ordered, scores, strict=True)))
    assert merges_from_scores(scores, ids, "file") == [tuple(merge) for merge in theirs]


def test_the_earlier_of_two_pieces_of_one_score_merges_first() -> None:
    ids = {"a": 0, "b": 1, "bb": 2, "ab": 3}
    assert merges_from_scores([0.0] * 4, dict(reversed(ids.items())), "file") == [("b", "b"), ("a", "b")]


def _overlaps(piece: str) -> bool:
    return any(piece.startswith(piece[cut:]) for cut in range(1, len(piece)))


def test_gemma_4(written: Callable[..., Metadata]) -> None:
    tokens = [*SPM_HEAD, "▁", "a", "b", "▁a", "\n", "\n\n", "▁▁", "   "]
    types = [*SPM_TYPES, *[NORMAL] * 7, USER_DEFINED]
    # "▁▁▁" is spelled as three spaces in the file, and the merge that makes it is not.
    merges = ["\n \n", "▁ ▁", "▁▁ ▁", "▁ a"]
    tokenizer = read_gguf_tokenizer(written("gemma4", tokens, types, merges=merges, more={"bos_token_id": 1}))
    spelled = [tokenizer.token(place) for place in tokenizer.encode("a a  b   a\n\n\né")]
    assert spelled == ["<s>", "a", "▁a", "▁▁", "b", "   ", "a", "\n\n", "\n", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode("a a  b   a\n\n\né")) == "a a  b   a\n\n\né"
    same = read_gguf_tokenizer(written("gpt2", tokens, types, merges=merges, more={"pre": "sarvam-moe"}))
    assert [same.token(place) for place in same.encode("a a  b")] == ["a", "▁a", "▁▁", "b"]


def test_byte_level(written: Callable[..., Metadata]) -> None:
    tokens = [*ALPHABET, "he", "Ġhe", "<|end|>", "[PAD259]", "    "]
    types = [*[NORMAL] * 258, CONTROL, UNUSED, USER_DEFINED]
    more = {"pre": "gpt-2", "eos_token_id": 258, "bos_token_id": 258}
    metadata = written("gpt2", tokens, types, merges=["h e", "Ġ he"], more=more)
    tokenizer = read_gguf_tokenizer(metadata)
    ids = tokenizer.encode("he he<|end|>    é[PAD259]")
    assert ids[:4] == [256, 257, 258, 260] and 259 not in ids
    assert tokenizer.decode(ids) == "he he    é[PAD259]"
    assert tokenizer.decode([259]) == ""  # a row that no token has
    assert tokenizer.special_texts() == ("<|end|>",)
    assert 258 not in tokenizer.encode("<|end|>", allow_special=False)
    around = written("gpt2", tokens, types, merges=["h e"], more={**more, "add_bos_token": True, "add_eos_token": True})
    assert read_gguf_tokenizer(around).encode("he") == [258, 256, 258]


def test_whole_pieces_and_bos_by_the_way_of_cutting(written: Callable[..., Metadata]) -> None:
    tokens = [*ALPHABET, "ab", "hey", "<s>"]
    types = [*[NORMAL] * 258, CONTROL]
    for pre, pieces in (("llama-bpe", ["<s>", "hey"]), ("qwen2", ["h", "e", "y"])):
        tokenizer = read_gguf_tokenizer(
            written("gpt2", tokens, types, merges=["a b"], more={"pre": pre, "bos_token_id": 258})
        )
        assert [tokenizer.token(place) for place in tokenizer.encode("hey")] == pieces


def test_normal_forms(written: Callable[..., Metadata]) -> None:
    tokens = [*ALPHABET, "ab"]
    for pre, text in (("qwen2", "é"), ("llama-bpe", "e\u0301")):
        tokenizer = read_gguf_tokenizer(written("gpt2", tokens, merges=["a b"], more={"pre": pre}))
        assert tokenizer.decode(tokenizer.encode("e\u0301")) == text


def test_unigram(written: Callable[..., Metadata]) -> None:
    pieces = {"▁ab": -3.0, "▁a": -1.0, "b": -1.5, "▁": -4.0, "a": -2.0, "c": -9.0}
    tokens = ["<pad>", "</s>", "<unk>", *pieces, "[PAD9]"]
    types = [CONTROL, CONTROL, UNKNOWN, *[NORMAL] * 6, UNUSED]
    scores = [0.0, 0.0, 0.0, *pieces.values(), -10000.0]

    def made(**more: Any) -> Tokenizer:
        return read_gguf_tokenizer(written("t5", tokens, types, scores, more=more))

    tokenizer = made(add_space_prefix=True, remove_extra_whitespaces=True)
    # -1 and -1.5 together are more than -3; two characters that no piece has are one unknown.
    assert [tokenizer.token(place) for place in tokenizer.encode("ab  a xy")] == [
        *("▁a", "b", "▁a", "▁", "<unk>", "</s>")
    ]
    assert tokenizer.vocab_size == 9
    bare = made(add_space_prefix=False, remove_extra_whitespaces=True, add_eos_token=False)
    assert [bare.token(place) for place in bare.encode(" ab  a ")] == ["a", "b", "▁a"]
    spaced = made(add_eos_token=False)
    assert [spaced.token(place) for place in spaced.encode("b  a ")] == ["b", "▁", "▁a", "▁"]


def test_unigram_with_bytes_and_a_row_without_a_token(written: Callable[..., Metadata]) -> None:
    tokens = ["<unk>", *BYTES, "[PAD257]", *"row▁257", "é"]
    types = [UNKNOWN, *[BYTE] * 256, UNUSED, *[NORMAL] * 8]
    tokenizer = read_gguf_tokenizer(
        written(
            "t5",
            tokens,
            types,
            [*[0.0] * 257, -10000.0, *[-1.0] * 8],
            more={"unknown_token_id": 0, "eos_token_id": -1},
        )
    )
    ids = tokenizer.encode("row 257éñ")
    assert [tokenizer.token(place) for place in ids] == [*"row▁257é", "<0xC3>", "<0xB1>"]


def test_words(written: Callable[..., Metadata]) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁hello", "lo", "▁hel", "▁,", "▁É", "▁e"]
    types = [CONTROL] * 4 + [NORMAL] * 6
    ids = {"unknown_token_id": 1, "cls_token_id": 2, "seperator_token_id": 3, "padding_token_id": 0}

    def spelled(text: str, **more: Any) -> list[str]:
        tokenizer = read_gguf_tokenizer(written("bert", tokens, types, more={**ids, **more}))
        return [tokenizer.token(place) for place in tokenizer.encode(text)]

    assert spelled("Hello, hel") == ["[CLS]", "hello", ",", "hel", "[SEP]"]
    assert spelled("hellolo É x") == ["[CLS]", "hello", "##lo", "e", "[UNK]", "[SEP]"]
    assert spelled("Hello É", **{"normalizer.lowercase": False}) == ["[CLS]", "[UNK]", "É", "[SEP]"]
    assert spelled("Hello É", **{"normalizer.strip_accents": False}) == ["[CLS]", "hello", "[UNK]", "[SEP]"]
    # Newer files have BOS where older ones had CLS.
    del ids["cls_token_id"]
    assert spelled("hello", bos_token_id=2) == ["[CLS]", "hello", "[SEP]"]


def test_words_as_the_model_spells_them() -> None:
    given = {"▁a": NORMAL, "a": NORMAL, "▁": NORMAL, "[CLS]": CONTROL, "[UNK]": UNKNOWN, "": UNUSED}
    made = respelled(Vocabulary(list(given), list(given.values()), True, "file"))
    assert made.tokens == ["a", "##a", "##▁", "[CLS]", "[UNK]", ""]


def test_a_merge_may_begin_with_a_space(written: Callable[..., Metadata]) -> None:
    assert read_merges(written("gpt2", merges=["  b", " b  "]), {" ": 0, "b": 1, " b": 2, " b ": 3}) == [
        *((" ", "b"), (" b", " "))
    ]


LOSSLESS = sorted({split: name for name, split in SPLITS.items() if not split.composed}.values())


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """A tokenizer for each way of cutting, with merges that reach over words, numbers and spaces."""
    import gguf

    merged = ["Ġt", "he", "Ġthe", "in", "ĠĠ", "ĊĊ", "12", "123", "Ã©", "!!", "aB"]
    merges = ["Ġ t", "h e", "Ġt he", "i n", "Ġ Ġ", "Ċ Ċ", "1 2", "12 3", "Ã ©", "! !", "a B"]
    made = {}
    for name in LOSSLESS:
        path = tmp_path_factory.mktemp("kinds") / "kind.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        writer.add_token_list([*ALPHABET, *merged])
        writer.add_token_merges(merges)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        content = Path(path).read_bytes()
        made[name] = read_gguf_tokenizer(parse(content, len(content), name).metadata)
    return made


TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from(string.printable + " \t\n\r'éñ中文ไทย😀\u0301\u3000"))


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_byte_level_texts_come_back(byte_level: dict[str, Tokenizer], text: str) -> None:
    for tokenizer in byte_level.values():
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
