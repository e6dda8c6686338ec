"""Roles of tokens, ends of answers, and tokens that are found in a text."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import pre_tokenizers

from bestiary.errors import TokenizerError
from bestiary.generation.tokenizer import Tokenizer
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf_tokenizer.reading import read_gguf_tokenizer
from bestiary_quant.gguf_tokenizer.special import end_ids
from bestiary_quant.gguf_tokenizer.vocabulary import CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED

HEAD = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]


@pytest.fixture
def file(written: Callable[..., Metadata]) -> Callable[..., Metadata]:
    """A byte-level vocabulary of 257 tokens and those that are given, by text and type."""

    def make(added: dict[str, int], types: bool = True, **more: Any) -> Metadata:
        kinds = [*[NORMAL] * len(HEAD), *added.values()] if types else None
        more = {"pre": "qwen2", **more}
        return written("gpt2", [*HEAD, *added], kinds, merges=["a b"], more=more)

    return make


def texts(metadata: Metadata) -> set[str]:
    tokens = [*HEAD, *metadata["tokenizer.ggml.tokens"][len(HEAD) :]]  # type: ignore[index]
    return {tokens[place] for place in end_ids(metadata)}


def test_ends_by_name_and_by_key(file: Callable[..., Metadata]) -> None:
    added = dict.fromkeys(("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|x|>", "<|file_sep|>"), CONTROL)
    assert texts(file(added)) == {"<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|file_sep|>"}
    assert texts(file({"<stop>": CONTROL, "<turn>": CONTROL}, eos_token_id=257, eot_token_id=258)) == {
        *("<stop>", "<turn>")
    }
    for key in ("eom_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"):
        assert texts(file({"<done>": CONTROL}, **{key: 257})) == {"<done>"}
        for nothing in (-1, (1 << 32) - 1):
            assert texts(file({"<done>": CONTROL}, **{key: nothing})) == set()


def test_ordinary_pieces_end_nothing(file: Callable[..., Metadata]) -> None:
    """Unlike in llama.cpp; but a piece that cannot be meant as text is taken for what it says, as there."""
    added = {"</s>": NORMAL, "[EOS]": NORMAL, "<|im_end|>": NORMAL}
    metadata = file(added)
    assert texts(metadata) == {"<|im_end|>"}
    assert read_gguf_tokenizer(metadata).special_texts() == ("<|im_end|>",)
    assert texts(file(added, types=False)) == {"</s>", "[EOS]", "<|im_end|>"}
    stated = file({"</s>": NORMAL}, eos_token_id=257)
    assert texts(stated) == {"</s>"}
    assert read_gguf_tokenizer(stated).special_texts() == ("</s>",)


def test_an_end_of_one_message_of_several(file: Callable[..., Metadata]) -> None:
    harmony = dict.fromkeys(("<|return|>", "<|call|>", "<|end|>"), CONTROL)
    assert texts(file(harmony)) == {"<|return|>", "<|call|>"}
    assert texts(file(dict.fromkeys(("<|flush|>", "<|calls|>", "<|end|>"), CONTROL))) == {"<|flush|>", "<|calls|>"}
    assert texts(file(dict.fromkeys(("<|return|>", "<|end|>"), CONTROL))) == {"<|return|>", "<|end|>"}
    assert texts(file({"<|tool_response>": USER_DEFINED, "</s>": CONTROL})) == {"<|tool_response>"}


def test_types(file: Callable[..., Metadata]) -> None:
    added = {"<|a|>": CONTROL, "<unk>": UNKNOWN, "<think>": USER_DEFINED, "[PAD260]": UNUSED, "[PAD261]": USER_DEFINED}
    tokenizer = read_gguf_tokenizer(file({**added, "[PAD262]": CONTROL}))
    assert tokenizer.special_texts() == ("<|a|>", "<unk>", "[PAD262]")
    spelled = [tokenizer.token(place) for place in tokenizer.encode("<think><|a|>[PAD260][PAD261]")]
    assert spelled[:2] == ["<think>", "<|a|>"] and not {"[PAD260]", "[PAD261]"} & set(spelled)
    assert tokenizer.decode([259, 257]) == "<think>"
    assert tokenizer.vocab_size == 263
    with pytest.raises(TokenizerError, match="260"):
        tokenizer.token(260)


def test_a_row_without_a_text_and_one_without_a_type(file: Callable[..., Metadata]) -> None:
    tokenizer = read_gguf_tokenizer(file({"": NORMAL, "x1": 0}))
    assert (tokenizer.vocab_size, tokenizer.decode([257]), tokenizer.decode([258])) == (259, "", "x1")
    with pytest.raises(TokenizerError, match="257"):
        tokenizer.token(257)


def test_roles(file: Callable[..., Metadata]) -> None:
    added = {"<b>": CONTROL, "<e>": CONTROL, "<u>": UNKNOWN, "<p>": CONTROL, "<m>": CONTROL, "<s>": CONTROL}
    keys = ("bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id", "mask_token_id")
    metadata = file(added, **dict(zip(keys, range(257, 262), strict=True)), seperator_token_id=262)
    assert read_gguf_tokenizer(metadata).special_tokens == {
        "bos_token": "<b>",
        "eos_token": "<e>",
        "unk_token": "<u>",
        "pad_token": "<p>",
        "mask_token": "<m>",
        "sep_token": "<s>",
    }


def test_ids_of_ordinary_pieces_are_no_roles(file: Callable[..., Metadata]) -> None:
    """Configurations state such ids for tokens that a model does not use; "!" must not vanish from answers."""
    stated = dict.fromkeys(("bos_token_id", "unknown_token_id", "padding_token_id"), 0)
    tokenizer = read_gguf_tokenizer(file({}, **stated))
    assert not tokenizer.special_tokens
    assert tokenizer.decode([0]) == HEAD[0]
    used = read_gguf_tokenizer(file({}, **stated, add_bos_token=True))
    assert used.special_tokens == {"bos_token": HEAD[0]}
    assert used.encode("ab") == [0, 256]


def test_no_role_and_wrong_roles(file: Callable[..., Metadata], caplog: pytest.LogCaptureFixture) -> None:
    nothing = dict.fromkeys(("bos_token_id", "eos_token_id", "padding_token_id", "eot_token_id"), -1)
    assert not read_gguf_tokenizer(file({}, **nothing)).special_tokens
    for key in ("bos_token_id", "eos_token_id", "unknown_token_id"):
        with pytest.raises(TokenizerError, match=f"{key}' is 257, and there are 257 tokens"):
            read_gguf_tokenizer(file({}, **{key: 257}))
    for key in ("eot_token_id", "fim_pad_token_id"):
        with pytest.raises(TokenizerError, match=key):
            end_ids(file({}, **{key: 1 << 30}))
    with caplog.at_level(logging.WARNING, logger="bestiary.quant"):
        assert not read_gguf_tokenizer(file({}, padding_token_id=300, mask_token_id=-5)).special_tokens
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert not read_gguf_tokenizer(file({"[PAD257]": UNUSED}, padding_token_id=257)).special_tokens


def test_defaults_of_kinds(written: Callable[..., Metadata]) -> None:
    spm = written("llama", ["<unk>", "<s>", "</s>", "a"], [UNKNOWN, CONTROL, CONTROL, NORMAL], [0.0] * 4)
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = read_gguf_tokenizer(spm)
    assert tokenizer.special_tokens == named
    assert tokenizer.encode("a")[0] == 1
    assert read_gguf_tokenizer(written("llama", ["<unk>", "<s>", "</s>", "a"], None, [0.0] * 4)).special_tokens == named
    short = written("llama", ["a", "b"], [NORMAL] * 2, [0.0] * 2)
    assert not read_gguf_tokenizer(short).special_tokens


def test_texts_of_tokens_are_not_read_as_templates(file: Callable[..., Metadata]) -> None:
    """The post-processor of the library gives ":" and "$" a meaning."""
    added, ends = {"$A:1": CONTROL, "a:b:c": CONTROL}, {"add_bos_token": True, "add_eos_token": True}
    tokenizer = read_gguf_tokenizer(file(added, bos_token_id=257, eos_token_id=258, **ends))
    assert tokenizer.encode("ab") == [257, 256, 258]


@pytest.mark.parametrize(
    ("name", "kept"), [("Phi-3-mini", "<|user|>hi"), ("my phi3", "<|user|>hi"), ("Llama", "<|user|> hi")]
)
def test_spaces_behind_tokens_of_phi_3(name: str, kept: str, written: Callable[..., Metadata]) -> None:
    tokens = ["<unk>", "<s>", "</s>", "<|user|>", "▁", "h", "i"]
    types = [UNKNOWN, CONTROL, CONTROL, CONTROL, NORMAL, NORMAL, NORMAL]
    more = {".general.name": name, "add_space_prefix": False}
    tokenizer = read_gguf_tokenizer(written("llama", tokens, types, [0.0] * 7, more=more))
    assert _text(tokenizer, "<|user|> hi") == kept
    assert _text(tokenizer, "<s> hi") == "<s> hi"


def test_spaces_before_masks(file: Callable[..., Metadata]) -> None:
    masks = {"<mask>": CONTROL, "[MASK]": CONTROL}
    for keys, taken in (
        ({"pre": "jina-v2-es"}, {"<mask>"}),
        ({"pre": "modern-bert", ".general.name": "x modern-bert"}, {"[MASK]"}),
        ({"pre": "gpt-2"}, set()),
    ):
        tokenizer = read_gguf_tokenizer(file(masks, **keys))
        for mask in masks:
            assert _text(tokenizer, f"a {mask}") == (f"a{mask}" if mask in taken else f"a {mask}")


def _text(tokenizer: Tokenizer, text: str) -> str:
    return tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), skip_special_tokens=False)
