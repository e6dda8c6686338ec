"""ConstraintState: forward, back, copied, on other threads, and to the end under random logits."""

import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from bestiary.errors import GenerationError, RequestError
from bestiary.generation.choosing import Row, choose_rows
from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.constraints.grammar import (
    Grammar,
    choices,
    json_object,
    json_schema,
    lark,
    raw,
    regex,
    tool_call,
)
from bestiary.generation.constraints.masks import apply_masks, packed, unpacked
from bestiary.generation.constraints.state import ConstraintState
from bestiary.generation.randomness import key
from bestiary.generation.sampling import Sampling

PERSON: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", 3, None]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "register", "parameters": PERSON}},
    {"type": "function", "function": {"name": "stop"}},
]


def is_person(value: Any) -> bool:
    return (
        list(value) == ["name", "age", "tags"]
        and len(value["name"]) <= 8
        and 0 <= value["age"] <= 150
        and len(value["tags"]) <= 3
        and all(tag in ("a", "b", 3, None) for tag in value["tags"])
    )


def is_call(text: str) -> bool:
    found = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", text, re.DOTALL)
    call = json.loads(found[1]) if found else {}
    if call.get("name") == "stop":
        return bool(call["arguments"] == {})
    return call.get("name") == "register" and is_person(call["arguments"])


def is_sum(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,3}([+*][0-9]{1,3})*", text) is not None


CASES: Mapping[str, tuple[Grammar, Callable[[str], bool]]] = {
    "json_schema": (json_schema(PERSON), lambda text: is_person(json.loads(text))),
    "compact": (
        json_schema(PERSON, whitespace="compact"),
        lambda text: (
            json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False).count(" ") == text.count(" ")
        ),
    ),
    "json_object": (json_object(), lambda text: isinstance(json.loads(text), dict)),
    "regex": (
        regex(r"(\+49|0)[1-9][0-9]{2,4}/[0-9]{5,8}( ext\. [0-9]{1,3})?"),
        lambda text: re.fullmatch(r"(\+49|0)[1-9][0-9]{2,4}/[0-9]{5,8}( ext\. [0-9]{1,3})?", text) is not None,
    ),
    "choices": (choices(["yes", "yes, but", "no", "nö\n"]), lambda text: text in ("yes", "yes, but", "no", "nö\n")),
    "lark": (lark('start: NUMBER (("+" | "*") NUMBER)*\nNUMBER: /[0-9]{1,3}/'), is_sum),
    "raw": (
        raw({"grammars": [{"lark_grammar": 'start: "<" @inner ">"'}, {"name": "inner", "json_schema": PERSON}]}),
        lambda text: is_person(json.loads(text[1:-1])) and text[0] + text[-1] == "<>",
    ),
    "tool_call": (tool_call(TOOLS), is_call),
}


def generated(compiler: ConstraintCompiler, grammar: Grammar, seed: int, jump: bool = False) -> str:
    """A text under random logits; after 200 tokens those that close something are much more probable."""
    tokenizer, rows = compiler.vocabulary.tokenizer, compiler.vocabulary.rows
    randomness = torch.Generator().manual_seed(seed)
    closing = [token for text in ('"', "}", "]", '"}', "]}", ">") if (token := tokenizer.id(text)) is not None]
    closing += compiler.vocabulary.end_tokens
    state, tokens = compiler.compile(grammar), list[int]()
    while not state.is_finished:
        assert len(tokens) < 2000, tokenizer.decode(tokens)
        forced = state.forced() if jump else []
        if not forced:
            logits = torch.randn(rows, generator=randomness) * 3
            if len(tokens) > 200:
                logits[closing] += 100.0
            number = key(seed, len(tokens))
            row = Row(Sampling(temperature=1.0), tokens, 0, number, frozenset(), frozenset(), state.mask())
            [chosen] = choose_rows(logits[None], [row])
            assert isinstance(chosen, int)
            forced = [chosen]
        for token in forced:
            state.advance(token)
            tokens.append(token)
    assert state.can_end
    return tokenizer.decode(tokens)


@pytest.mark.parametrize("name", CASES)
def test_random_logits_end_in_a_text_of_the_grammar(demo: ConstraintCompiler, name: str) -> None:
    grammar, holds = CASES[name]
    texts = [generated(demo, grammar, seed) for seed in range(50)]
    assert [text for text in texts if not holds(text)] == []
    assert len(set(texts)) > (1 if name == "choices" else 10)


@pytest.mark.parametrize("name", ["llama2", "qwen2-qwen3"])
def test_random_logits_with_large_vocabularies(name: str, real: Callable[[str], ConstraintCompiler]) -> None:
    for grammar, holds in CASES.values():
        text = generated(real(name), grammar, 0)
        assert holds(text), text


@pytest.mark.parametrize("name", CASES)
def test_forced_tokens_need_no_logits(demo: ConstraintCompiler, name: str) -> None:
    grammar, holds = CASES[name]
    assert all(holds(generated(demo, grammar, seed, jump=True)) for seed in range(10))


def test_forced_tokens_are_the_usual_spelling(real: Callable[[str], ConstraintCompiler]) -> None:
    compiler = real("qwen2-qwen3")
    state = compiler.compile(tool_call(TOOLS[:1]))
    text = compiler.vocabulary.tokenizer.decode(state.forced())
    usual = compiler.vocabulary.tokenizer.encode_after('<tool_call>\n{"name": "register", "arguments": {')
    assert '<tool_call>\n{"name": "register", "arguments":'.startswith(text) and len(text) > 30
    assert state.forced() == usual[: len(state.forced())]
    assert usual[0] == compiler.vocabulary.tokenizer.id("<tool_call>")


def test_rollback_and_copy_lead_to_the_same_masks(demo: ConstraintCompiler) -> None:
    randomness = np.random.default_rng(0)
    for grammar, _ in CASES.values():
        state, masks, tokens = demo.compile(grammar), [], list[int]()
        while not state.is_finished and len(tokens) < 60:
            masks.append(state.allowed())
            tokens.append(int(randomness.choice(np.flatnonzero(masks[-1]))))
            state.advance(tokens[-1])
        for _ in range(20):
            back = int(randomness.integers(0, len(state) + 1))
            branch = state.copy()
            branch.rollback(back)
            place = len(branch)
            assert place == len(state) - back
            if place < len(masks):
                assert not branch.is_finished and (branch.allowed() == masks[place]).all()
                assert branch.accepts(tokens[place:]) == len(tokens) - place
                for token in tokens[place : place + 3]:
                    branch.advance(token)
            state = branch if back < 3 else state
            tokens, masks = tokens[: max(len(state), 0)], masks[: len(state) + 1]


def test_a_token_that_may_not_come_changes_nothing(demo: ConstraintCompiler) -> None:
    state = demo.compile(choices(["yes", "no"]))
    before = state.allowed()
    for token in (demo.vocabulary.tokenizer.encode_after("x")[0], -1, 10**9, demo.vocabulary.end_tokens[0]):
        with pytest.raises(GenerationError, match="does not allow"):
            state.advance(token)
    assert len(state) == 0 and (state.allowed() == before).all()
    with pytest.raises(RequestError, match="cannot be taken back"):
        state.rollback(1)
    for token in demo.vocabulary.tokenizer.encode_after("yes"):
        state.advance(token)
    assert state.is_finished and np.flatnonzero(state.allowed()).tolist() == list(demo.vocabulary.end_tokens)
    state.advance(demo.vocabulary.end_tokens[0])
    assert state.accepts([demo.vocabulary.end_tokens[0]]) == 0
    with pytest.raises(GenerationError):
        state.advance(demo.vocabulary.end_tokens[0])


def test_masks_of_a_batch_are_those_of_each(demo: ConstraintCompiler) -> None:
    states: list[ConstraintState | None] = [demo.compile(grammar) for grammar, _ in CASES.values()]
    states.insert(2, None)
    logits = torch.randn(len(states), demo.vocabulary.rows, generator=torch.Generator().manual_seed(0))
    masked = apply_masks(logits, states)
    for row, state in enumerate(states):
        due = logits[row] if state is None else state.apply(logits[row])
        assert torch.equal(masked[row], due)
        if state is not None:
            allowed = torch.from_numpy(state.allowed())
            assert torch.equal(due[allowed], logits[row][allowed]) and due[~allowed].isneginf().all()
    assert torch.equal(apply_masks(logits, [None] * len(states)), logits)


def test_words_and_booleans() -> None:
    for size in (1, 31, 32, 33, 151_936):
        allowed = np.random.default_rng(size).random(size) < 0.3
        assert (unpacked(packed(allowed), size) == allowed).all() and packed(allowed).dtype == np.int32
    word = packed(np.arange(40) == 33)
    assert word.tolist() == [0, 2]


def test_logits_that_leave_no_token_are_an_error(demo: ConstraintCompiler) -> None:
    state = demo.compile(choices(["yes", "no"]))
    logits = torch.zeros(demo.vocabulary.rows)
    logits[torch.from_numpy(state.allowed())] = -torch.inf
    with pytest.raises(GenerationError, match="No token is left"):
        state.apply(logits)


def test_masks_on_another_thread_are_the_same(demo: ConstraintCompiler) -> None:
    for grammar, _ in CASES.values():
        ahead, plain = demo.compile(grammar), demo.compile(grammar)
        for _ in range(12):
            if plain.is_finished:
                break
            ahead.start()
            ahead.start()
            token = int(np.flatnonzero(plain.allowed())[0])
            assert (ahead.mask() == plain.mask()).all()
            ahead.advance(token)
            plain.advance(token)
            ahead.start()
            assert ahead.can_end == plain.can_end and ahead.forced() == plain.forced()
            ahead.start()
            assert (ahead.copy().mask() == plain.mask()).all()


def test_many_threads_compile_one_grammar_once(demo: ConstraintCompiler) -> None:
    compiler = ConstraintCompiler(demo.vocabulary.tokenizer, demo.vocabulary.rows, demo.vocabulary.end_tokens, kept=4)
    texts: list[str] = []
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        try:
            barrier.wait()
            for name, (grammar, holds) in CASES.items():
                text = generated(compiler, grammar, number)
                assert holds(text), (name, text)
                texts.append(text)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and len(texts) == 8 * len(CASES)


def test_a_dead_end_is_an_error_and_no_end(real: Callable[[str], ConstraintCompiler]) -> None:
    """The vocabulary of T5 has no braces."""
    compiler = real("t5-small")
    with pytest.raises(RequestError, match="cannot spell"):
        compiler.compile(json_object())
    with pytest.raises(RequestError, match="cannot spell"):
        compiler.compile(choices(["Yes it is {"]))
    compiler.compile(choices(["Yes it is {", "no"]))
    state = compiler.compile(regex("[a-z]{30}[{]"))
    with pytest.raises(GenerationError, match="dead end"):
        for _ in range(40):
            state.advance(int(np.flatnonzero(state.allowed())[0]))
    assert not state.can_end


def test_an_automaton_that_grows_too_large_fails_its_request_only(demo: ConstraintCompiler) -> None:
    compiler = ConstraintCompiler(demo.vocabulary.tokenizer, demo.vocabulary.rows, demo.vocabulary.end_tokens)
    grammar = regex("(a|b)*a(a|b){24}")
    letters = [compiler.vocabulary.tokenizer.encode_after(letter)[0] for letter in "ab"]
    tokens = [letters[bit] for bit in np.random.default_rng(0).integers(0, 2, 60_000)]
    state = compiler.compile(grammar)
    with pytest.raises(GenerationError, match="failed while"):
        for token in tokens:
            state.mask()
            state.advance(token)
    fresh = compiler.compile(grammar)
    for token in tokens[:500]:
        fresh.advance(token)
