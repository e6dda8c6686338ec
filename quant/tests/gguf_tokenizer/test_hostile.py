"""Metadata that are not sound end in an error of the project, with the place, and in little memory."""

import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bestiary.errors import BestiaryError, CheckpointError, TokenizerError
from bestiary_quant.gguf.header import parse
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer import merges, special, unigram, vocabulary
from bestiary_quant.gguf_tokenizer.reading import read_gguf_tokenizer
from bestiary_quant.gguf_tokenizer.special import end_ids
from bestiary_quant.gguf_tokenizer.vocabulary import CONTROL, NORMAL, UNKNOWN

TOKENS = ["<unk>", "<s>", "</s>", "a", "b", "ab"]
TYPES = [UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL, NORMAL]
SCORES = [0.0] * 6
PRE = {"pre": "gpt-2"}
CHARSMAP = {"precompiled_charsmap": (1024).to_bytes(4, "little") + bytes(1025)}
"""A table in which no character has a replacement."""


def case(says: str, model: str = "gpt2", tokens: Any = TOKENS, types: Any = TYPES, **keywords: Any) -> Any:
    name = f"{model}: {says}"[:60]
    return pytest.param(says, (model, tokens, types), {"merges": ["a b"], "scores": SCORES, **keywords}, id=name)


# fmt: off
CASES = [
    case("carries no tokenizer", "none"),
    case("carries no tokenizer", "no_vocab"),
    *(case(f"tokenizer.ggml.model is {kind!r}", kind) for kind in ("rwkv", "plamo2", "hybriddna", "x\ty")),
    case("tokenizer.ggml.pre is 'mpt-7b'", more={"pre": "mpt-7b"}),
    case("'tokenizer.ggml.pre' is 7; a string", more={"pre": 7}),
    case("has no 'tokenizer.ggml.tokens'", tokens=None),
    case("'tokenizer.ggml.tokens' is no array", tokens=None, more={**PRE, "tokens": "a"}),
    case("'tokenizer.ggml.tokens' holds numbers", tokens=None, more={**PRE, "tokens": [1, 2]}),
    case("an array of 5, for 6 tokens", types=TYPES[:5], more=PRE),
    case("an array of 7, for 6 tokens", types=[*TYPES, 1], more=PRE),
    case("no array, for 6 tokens", types=None, more={**PRE, "token_type": 1}),
    case("does not hold finite numbers", types=["a"] * 6, more=PRE),
    case("the unknown type 7", types=[*TYPES[:5], 7], more=PRE),
    case("the unknown type -1", types=[*TYPES[:5], -1], more=PRE),
    case("the unknown type 1.5", types=[*[1.0] * 5, 1.5], more=PRE),
    case("Two tokens are 'a'", tokens=[*TOKENS[:5], "a"], more=PRE),
    case("has 16385 characters", tokens=[*TOKENS[:5], "x" * 16385], more=PRE),
    case("has 10000000 characters", tokens=[*TOKENS[:5], "x" * 10_000_000], more=PRE),
    case("'tokenizer.ggml.add_bos_token' must be true or false", more={**PRE, "add_bos_token": 1}),
    case("'tokenizer.ggml.add_bos_token' must be true or false", more={**PRE, "add_bos_token": [True]}),
    case("'tokenizer.ggml.bos_token_id' is 'a'", more={**PRE, "bos_token_id": "a"}),
    # Merges
    case("has no 'tokenizer.ggml.merges'", merges=None, more=PRE),
    case("The merge 'a c' is not two tokens", merges=["a c"], more=PRE),
    case("The merge 'b a' is not two tokens", merges=["b a"], more=PRE),
    case("The merge 'ab' is not two tokens", merges=["a b", "ab"], more=PRE),
    case("The merge '' is not two tokens", merges=[""], more=PRE),
    case("The merge ' ' is not two tokens", merges=[" "], more=PRE),
    case("The merge 'a ' is not two tokens", merges=["a "], more=PRE),
    case("The merge ' a' is not two tokens", merges=[" a"], more=PRE),
    case("The merge 'a b ' is not two tokens", merges=["a b "], more=PRE),
    case("The merge 'a b a' is not two tokens", merges=["a b a", "b"], more=PRE),
    case("The merge 'a\\x00b' is not two tokens", merges=["a\0b"], more=PRE),
    case("is not two tokens", merges=["a" * 10_000_000 + " b"], more=PRE),
    case("is not two tokens", "gemma4", merges=["a c"]),
    # Scores
    case("has no 'tokenizer.ggml.scores'", "llama", scores=None),
    case("an array of 5, for 6 tokens", "llama", scores=SCORES[:5]),
    case("does not hold finite numbers", "llama", scores=[*SCORES[:5], float("nan")]),
    case("does not hold finite numbers", "llama", scores=[*SCORES[:5], float("-inf")]),
    case("too long to be merged", "llama", tokens=[*TOKENS[:5], "x" * 16384], scores=SCORES),
    case("no scores of its tokens", "t5", scores=None),
    case("or no unknown token", "t5", types=[NORMAL] * 6),
    case("'tokenizer.ggml.unknown_token_id' is 6", "t5", more={"unknown_token_id": 6}),
    case("A piece has 1025 bytes", "t5", tokens=[*TOKENS[:5], "x" * 1025], more={"unknown_token_id": 0}),
    case("has no unknown token", "bert"),
    case("Two tokens are 'a'", "bert", tokens=["[UNK]", "<s>", "a", "▁a", "b", "c"], more={"unknown_token_id": 0}),
    # The table of characters
    *(
        case("precompiled_charsmap' are", "t5", more={"unknown_token_id": 0, "precompiled_charsmap": value})
        for value in (
            7, "text", [1.5], [70000, 1], b"\4", b"\4\0\0\0", b"\4\0\0\0\1\2\3\4", b"\0\0\0\0abcde\0",
            b"\3\0\0\0abcde\0", b"\xff\xff\xff\xffabcd\0", b"\4\0\0\0abcde", b"\4\0\0\0abcd" + b"a" * 20,
        )
    ),
]
# fmt: on


@pytest.mark.parametrize(("says", "values", "keywords"), CASES)
def test_case(says: str, values: Any, keywords: Any, written: Callable[..., Metadata]) -> None:
    with pytest.raises(BestiaryError) as caught:
        read_gguf_tokenizer(written(*values, **keywords))
    # What has the wrong type is refused by the reader of the format.
    assert type(caught.value) is (
        CheckpointError if "token_id' is 'a'" in says or "a string" in says else TokenizerError
    )
    message = str(caught.value)
    assert says in message and "model.gguf" in message
    assert len(message) < 700 and "\0" not in message


@pytest.mark.parametrize("model", ["gpt2", "llama", "gemma4", "t5", "bert"])
def test_the_cases_begin_with_a_sound_file(model: str, written: Callable[..., Metadata]) -> None:
    more = {**PRE, **CHARSMAP, "unknown_token_id": 0}
    tokenizer = read_gguf_tokenizer(written(model, TOKENS, TYPES, SCORES, ["a b"], more))
    assert tokenizer.encode("ab")


def test_strings_that_are_no_text(written: Callable[..., Metadata]) -> None:
    with pytest.raises(CheckpointError, match=r"String 3 of the metadata 'tokenizer\.ggml\.tokens' is not UTF-8"):
        read_gguf_tokenizer(written("gpt2", [*TOKENS[:3], b"\xff\xfe"], more=PRE))
    with pytest.raises(CheckpointError, match=r"tokenizer\.ggml\.merges' is not UTF-8"):
        read_gguf_tokenizer(written("gpt2", TOKENS, TYPES, merges=["a b", b"\xc3("], more=PRE))


def test_limits(written: Callable[..., Metadata], monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits themselves are large; here they are small, and one more than allowed is refused."""
    sound = {"more": {**PRE, "unknown_token_id": 0}, "merges": ["a b", "a b"], "scores": SCORES}
    for module, name, least, model, says in (
        (vocabulary, "MAX_TEXT", 16, "gpt2", "all have 16"),
        (special, "MAX_ADDED_TEXT", 12, "gpt2", "3 tokens control"),
        (merges, "MAX_WORK", 6, "llama", "too long to be merged"),
        (unigram, "MAX_TEXT", 16, "t5", "all have 16"),
    ):
        monkeypatch.setattr(module, name, least - 1)
        with pytest.raises(TokenizerError, match=says):
            read_gguf_tokenizer(written(model, TOKENS, TYPES, **sound))
        monkeypatch.setattr(module, name, least)
        assert read_gguf_tokenizer(written(model, TOKENS, TYPES, **sound)).encode("ab")
    many = [f"{number:x}" for number in range(vocabulary.MAX_TOKENS + 1)]
    with pytest.raises(TokenizerError, match="has 524289 items; 524288 are allowed"):
        read_gguf_tokenizer(written("gpt2", many, more=PRE))


def test_a_table_of_characters_that_points_nowhere(written: Callable[..., Metadata]) -> None:
    """The library panics where such a table is used; it ends in an error all the same."""
    draw = random.Random(3)
    for _ in range(40):
        words = draw.randint(1, 40)
        table = (4 * words).to_bytes(4, "little") + draw.randbytes(4 * words) + b"abc\0"
        metadata = written("t5", TOKENS, TYPES, SCORES, more={"unknown_token_id": 0, "precompiled_charsmap": table})
        try:
            tokenizer = read_gguf_tokenizer(metadata)
            tokenizer.encode(string.printable + "é中")
        except TokenizerError as error:
            assert "model.gguf" in str(error)


WORDS = st.text("ab▁ Ġ<>[]PAD0", max_size=6)
TABLES = st.lists(
    st.tuples(WORDS, st.integers(-1, 8), st.floats(width=32, allow_nan=False) | st.just(-1.0)), min_size=1, max_size=12
)
IDS = st.integers(-2, 14)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["gpt2", "llama", "gemma4", "t5", "bert"]),
    TABLES,
    st.lists(st.tuples(WORDS, WORDS), max_size=5),
    st.dictionaries(st.sampled_from(["bos_token_id", "eos_token_id", "unknown_token_id", "cls_token_id"]), IDS),
    st.dictionaries(
        st.sampled_from(["add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"]),
        st.booleans(),
    ),
)
def test_any_vocabulary(
    write: Callable[..., Path], model: str, table: Any, pairs: Any, ids: dict[str, int], flags: dict[str, bool]
) -> None:
    tokens, types, scores = zip(*table, strict=True)
    joined = [" ".join(pair) for pair in pairs]
    content = write(model, tokens, types, scores, joined, {**PRE, **ids, **flags}).read_bytes()
    metadata = parse(content, len(content), "model.gguf").metadata
    try:
        tokenizer = read_gguf_tokenizer(metadata)
        tokenizer.decode(tokenizer.encode("ab <a> [PAD0] é"))
        assert all(place < len(tokens) for place in end_ids(metadata))
    except BestiaryError as error:
        assert "model.gguf" in str(error)
