"""A mask allows exactly the tokens that keep the text a beginning of the language."""

import json
import re
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.constraints.grammar import choices, lark, regex
from bestiary.generation.constraints.state import ConstraintState
from bestiary.generation.detokenizer import Detokenizer

Language = frozenset[bytes]


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> tuple[str, frozenset[str]]:
    """A regular expression of a finite language, with the language, which is computed beside it and not from it."""
    kind = draw(st.sampled_from(("text", "class", "optional", "either", "both", "repeat"))) if depth else "text"
    if kind == "text":
        text = draw(st.text("ab {é", min_size=1, max_size=3))
        return "".join(f"\\{letter}" if letter == "{" else letter for letter in text), frozenset([text])
    if kind == "class":
        letters = draw(st.sets(st.sampled_from("abcé"), min_size=1, max_size=3))
        return f"[{''.join(sorted(letters))}]", frozenset(letters)
    left, first = draw(expressions(depth=depth - 1))
    if kind == "optional":
        return f"({left})?", first | {""}
    if kind == "repeat":
        least, most = sorted(draw(st.tuples(st.integers(0, 2), st.integers(0, 2))))
        words = {"".join(parts) for count in range(least, most + 1) for parts in product(sorted(first), repeat=count)}
        return f"({left}){{{least},{most}}}", frozenset(words)
    right, second = draw(expressions(depth=depth - 1))
    if kind == "either":
        return f"({left}|{right})", first | second
    return f"({left})({right})", frozenset(one + two for one in first for two in second)


def exact(compiler: ConstraintCompiler, language: Language, text: bytes) -> set[int]:
    """The tokens that may come after a text, by the definition."""
    beginnings = {word[:size] for word in language for size in range(len(word) + 1)}
    tokenizer, ends = compiler.vocabulary.tokenizer, compiler.vocabulary.end_tokens
    found = {
        token
        for token in range(tokenizer.vocab_size)
        if not tokenizer.is_special(token) and token not in ends and (piece := tokenizer.token_bytes(token))
        if text + piece in beginnings
    }
    return found | (set(ends) if text in language else set())


def walk(compiler: ConstraintCompiler, state: ConstraintState, language: Language, picks: list[int]) -> None:
    text = b""
    for pick in picks:
        due = exact(compiler, language, text)
        mask = set(np.flatnonzero(state.allowed()).tolist())
        assert state.can_end == (text in language)
        assert state.accepts([-1]) == 0 and state.accepts([compiler.vocabulary.rows]) == 0
        if mask != due:
            # The text leaves no choice: of its spellings the usual one is asked for, but any is taken.
            assert len({compiler.vocabulary.tokenizer.token_bytes(token)[:1] for token in due}) == 1
            assert text not in language and mask == {state.forced()[0]} and mask < due
        assert all(state.accepts([token]) for token in due)
        token = sorted(due)[pick % len(due)]
        state.advance(token)
        if token in compiler.vocabulary.end_tokens:
            assert state.is_finished and text in language
            return
        text += compiler.vocabulary.tokenizer.token_bytes(token)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(expressions().filter(lambda made: 0 < len(made[1]) < 400), st.lists(st.integers(0, 1000), max_size=12))
def test_of_regular_expressions(demo: ConstraintCompiler, made: tuple[str, frozenset[str]], picks: list[int]) -> None:
    pattern, words = made
    language = frozenset(word.encode() for word in words)
    walk(demo, demo.compile(regex(pattern)), language, picks)


@settings(max_examples=100, deadline=None)
@given(
    st.sets(st.text("abc {}:\"'\\\n\x7fé😀<|im_end|>", max_size=8), min_size=1, max_size=6),
    st.lists(st.integers(0, 1000), max_size=12),
)
def test_of_choices(demo: ConstraintCompiler, words: set[str], picks: list[int]) -> None:
    if words == {""}:
        return  # there is nothing to generate but the end
    language = frozenset(word.encode() for word in words)
    walk(demo, demo.compile(choices(words)), language, picks)


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.text("abé{", min_size=1, max_size=6), min_size=1, max_size=4), st.lists(st.integers(0, 99), max_size=8)
)
def test_without_forcing_every_spelling_may_come(demo: ConstraintCompiler, words: set[str], picks: list[int]) -> None:
    language = frozenset(word.encode() for word in words)
    options = '%llguidance {"no_forcing": true}\n'
    state = demo.compile(lark(f"{options}start: {' | '.join(json.dumps(word) for word in sorted(words))}"))
    text = b""
    for pick in picks:
        due = exact(demo, language, text)
        assert set(np.flatnonzero(state.allowed()).tolist()) == due
        token = sorted(due)[pick % len(due)]
        state.advance(token)
        if token in demo.vocabulary.end_tokens:
            return
        text += demo.vocabulary.tokenizer.token_bytes(token)


@pytest.mark.parametrize("name", ["llama2", "mistral-7b-instruct-v0.2", "t5-small", "phi-2", "qwen2-qwen3"])
def test_the_first_token_is_read_as_it_will_be_shown(name: str, real: Callable[[str], ConstraintCompiler]) -> None:
    """Metaspace tokenizers drop a space at the start of an answer: the token "▁yes" is "yes" there."""
    compiler = real(name)
    tokenizer, words = compiler.vocabulary.tokenizer, ("yes", "no", " maybe", "yes and no")
    beginnings = {word[:size] for word in words for size in range(1, len(word) + 1)}
    state = compiler.compile(choices(words))
    spelled = {tokenizer.pieces.piece(token) for token in range(tokenizer.vocab_size)}

    def shown(token: int) -> str:
        detokenizer = Detokenizer(tokenizer)
        return detokenizer.push(token) + detokenizer.flush()

    due = {token for token in range(tokenizer.vocab_size) if shown(token) in beginnings}
    due = {token for token in due if shown(token).encode() in spelled}  # its reading must be a token of its own
    assert set(np.flatnonzero(state.allowed()).tolist()) == due
    for token in sorted(due):
        branch = state.copy()
        branch.advance(token)
        while not branch.is_finished and not branch.can_end:
            branch.advance(int(np.flatnonzero(branch.allowed())[0]))


@pytest.mark.parametrize("name", ["llama2", "qwen2-qwen3"])
def test_rows_without_a_token_and_special_tokens_never_come(
    name: str, real: Callable[[str], ConstraintCompiler]
) -> None:
    compiler = real(name)
    vocabulary = compiler.vocabulary
    state = compiler.compile(regex(r"(?s:.)*"))
    allowed = state.allowed()
    assert len(allowed) == vocabulary.rows > vocabulary.tokenizer.vocab_size
    assert not allowed[vocabulary.tokenizer.vocab_size :].any()
    silent = [token for token in range(vocabulary.tokenizer.vocab_size) if vocabulary.tokenizer.is_special(token)]
    assert {token for token in silent if allowed[token]} == set(vocabulary.end_tokens)
    if name == "qwen2-qwen3":  # added tokens that are not special are text
        assert allowed[vocabulary.tokenizer.id("<tool_call>")]


def test_fewer_rows_than_tokens(demo: ConstraintCompiler) -> None:
    """A model whose embedding was cut: tokens beyond it do not come, nor does an end that it has not."""
    small = ConstraintCompiler(demo.vocabulary.tokenizer, 300, [2, 1_000_000])
    state = small.compile(regex("[a-z ]+"))
    whole = demo.compile(regex("[a-z ]+"))
    assert len(state.mask()) == 10 and (state.allowed() == whole.allowed()[:300]).all()
    state.advance(int(np.flatnonzero(state.allowed())[0]))
    assert state.allowed()[2]


def test_without_an_end_token_the_state_says_when_it_is_over(demo: ConstraintCompiler) -> None:
    endless = ConstraintCompiler(demo.vocabulary.tokenizer, demo.vocabulary.rows, [])
    state = endless.compile(choices(["yes"]))
    while not state.is_finished:
        state.advance(int(np.flatnonzero(state.allowed())[0]))
    assert state.can_end and not state.mask().any()


def test_an_end_token_that_is_plain_text_ends_only_where_the_text_may_end(demo: ConstraintCompiler) -> None:
    tokenizer = demo.vocabulary.tokenizer
    letter = tokenizer.encode_after("a")[0]
    compiler = ConstraintCompiler(tokenizer, tokenizer.vocab_size, [letter])
    state = compiler.compile(regex("b[ab]*c"))
    assert not state.allowed()[letter]
    for token in tokenizer.encode_after("b"):
        state.advance(token)
    assert not state.allowed()[letter]
    assert re.fullmatch("b[ab]*c", "bc")
    for token in tokenizer.encode_after("c"):
        state.advance(token)
    assert state.allowed()[letter] and state.allowed().sum() == 1
