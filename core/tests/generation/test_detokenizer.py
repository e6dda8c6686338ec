"""Detokenizer: what was streamed joins to the decode of the whole, and is never broken text."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models

from bestiary.generation.detokenizer import Detokenizer
from bestiary.generation.tokenizer import Tokenizer

STREAMING = ("llama2", "mistral-7b-instruct-v0.2", "phi-2", "phi-3-mini", "qwen2-qwen3")
TEXTS = (
    "Hello, world!\n\tdef f():\n    return 1",
    "😀👨‍👩‍👧‍👦🇩🇪👍🏽 emoji",
    "你好，世界。日本語と한국어",
    "e\u0301 n\u0303 Z\u0351\u036b\u0343 ก็ हिन्दी",
    "  two spaces  and   three ",
    "ܐ𐍈𝔘𝔫𝔦𐎀 \u200d\u2028 \ufffd end",
)


@pytest.fixture(scope="module")
def loaded(tokenizer_folders: dict[str, Path], folder_repository: Callable[..., Any]) -> dict[str, Tokenizer]:
    return {name: Tokenizer.from_repository(folder_repository(folder)) for name, folder in tokenizer_folders.items()}


def stream(tokenizer: Tokenizer, ids: list[int], skip: bool = True) -> tuple[list[str], str]:
    detokenizer = Detokenizer(tokenizer, skip)
    return [detokenizer.push(token_id) for token_id in ids], detokenizer.flush()


@pytest.mark.parametrize("text", TEXTS)
def test_stream_is_the_text(loaded: dict[str, Tokenizer], text: str) -> None:
    for name in STREAMING:
        tokenizer = loaded[name]
        ids = tokenizer.encode(text, add_special_tokens=False)
        parts, rest = stream(tokenizer, ids)
        assert "".join(parts) + rest == tokenizer.decode(ids), name
        assert rest == "" and ("\ufffd" in "".join(parts)) == ("\ufffd" in text), name


@pytest.mark.parametrize("text", TEXTS)
def test_an_end_inside_a_character_is_one_replacement_at_the_end(loaded: dict[str, Tokenizer], text: str) -> None:
    text = text.replace("\ufffd", "")
    for name in STREAMING:
        tokenizer = loaded[name]
        ids = tokenizer.encode(text, add_special_tokens=False)
        for end in range(len(ids)):
            parts, rest = stream(tokenizer, ids[:end])
            assert "\ufffd" not in "".join(parts) and rest in ("", "\ufffd"), (name, end)
            assert "".join(parts) + rest == tokenizer.decode(ids[:end]), (name, end)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_ids(loaded: dict[str, Tokenizer], data: st.DataObject) -> None:
    """Any ids, byte tokens and special tokens more often than by chance."""
    name = data.draw(st.sampled_from(sorted(loaded)))
    tokenizer = loaded[name]
    low = st.integers(0, 300)
    anywhere = st.integers(0, tokenizer.vocab_size + 2)
    ids = data.draw(st.lists(st.one_of(low, anywhere), max_size=24))
    skip = data.draw(st.booleans())
    parts, rest = stream(tokenizer, ids, skip)
    assert "".join(parts) + rest == tokenizer.decode(ids, skip)


def test_the_pieces_are_what_the_library_decodes(loaded: dict[str, Tokenizer]) -> None:
    """Well-formed text of the pieces equals the decoder of `tokenizers`, which knows nothing of pieces."""
    draw = random.Random(0)
    for name in STREAMING:
        tokenizer = loaded[name]
        for _ in range(300):
            ids = [draw.randrange(tokenizer.vocab_size) for _ in range(draw.randrange(1, 12))]
            expected = tokenizer.backend.decode(ids, skip_special_tokens=False)
            if "\ufffd" not in expected or not tokenizer.pieces.byte_fallback:
                assert tokenizer.pieces.join(ids) == expected, (name, ids)


def test_whole_characters_stay_when_a_broken_one_follows(loaded: dict[str, Tokenizer]) -> None:
    """The library would turn the first emoji into four U+FFFD once the bytes after it are no character."""
    tokenizer = loaded["llama2"]
    ids = [tokenizer.id(f"<0x{value:02X}>") for value in "😀".encode()]
    assert all(ids)
    assert stream(tokenizer, [*ids, *ids[:2]]) == (["", "", "", "😀", "", ""], "\ufffd")  # type: ignore[list-item]
    assert tokenizer.decode([*ids, *ids[:2]]) == "😀\ufffd"  # type: ignore[list-item]


def test_metaspace_drops_spaces_at_the_very_start_only() -> None:
    backend = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("▁the", -1.0), ("▁▁", -2.0), ("x", -3.0)], 0))
    backend.decoder = decoders.Metaspace()
    tokenizer = Tokenizer(backend)
    for ids in ([1, 1], [2, 1], [2, 2, 3], [3, 2, 1]):
        parts, rest = stream(tokenizer, ids)
        assert "".join(parts) + rest == tokenizer.decode(ids) == backend.decode(ids)
        assert rest == ""


def test_a_detokenizer_serves_the_next_sequence_after_flush(loaded: dict[str, Tokenizer]) -> None:
    tokenizer = loaded["llama2"]
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer.encode("Once upon", add_special_tokens=False)
    for _ in range(2):
        assert "".join(map(detokenizer.push, ids)) + detokenizer.flush() == "Once upon"
