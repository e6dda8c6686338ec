"""Random logits under the grammar of required calls: whatever comes is read as calls with valid arguments."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.tools.answer_grammar import Thinking, Wanted, answer_grammar
from bestiary.generation.tools.choose import form_of, parser_of, tool_format
from bestiary.generation.tools.events import Message, assemble
from bestiary.generation.tools.reasoning import Reasoned, ReasoningSplit
from bestiary.generation.tools.tool_choice import validate_tools
from bestiary.records import ToolFormat
from bestiary.registry import default_registry

Vocabulary = Callable[..., ConstraintCompiler]
NAMES = sorted(record.name for record, _ in default_registry().records(ToolFormat))
SPECIAL = (
    *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<think>", "</think>"),
    *("<|tool_call>", "<tool_call|>", '<|"|>', "<escape>", "<start_function_call>", "<end_function_call>"),
    *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    *("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"),
    *("<|channel|>", "<|message|>", "<|constrain|>", "<|start|>", "<|end|>", "<arg_key>", "</arg_value>"),
)
PARAMETERS = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "maxLength": 12},
        "unit": {"enum": ["C", "F", "°"]},
        "count": {"type": "integer", "minimum": -3, "maximum": 1000},
        "sure": {"type": ["boolean", "null"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 3},
        "place": {
            "type": "object",
            "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
            "required": ["x"],
            "additionalProperties": False,
        },
    },
    "required": ["text", "count"],
    "additionalProperties": False,
}
NAMED = {"text", "unit", "count", "sure", "tags", "place"}
TOOLS = validate_tools([{"name": "look", "parameters": PARAMETERS, "strict": True}, {"name": "look_up"}])


def valid(arguments: dict[str, Any]) -> bool:
    """PARAMETERS, by hand."""
    place = arguments.get("place", {"x": 0})
    return (
        {"text", "count"} <= set(arguments) <= NAMED
        and isinstance(arguments["text"], str)
        and len(arguments["text"]) <= 12
        and arguments.get("unit", "C") in ("C", "F", "°")
        and type(arguments["count"]) is int
        and -3 <= arguments["count"] <= 1000
        and arguments.get("sure") in (True, False, None)
        and isinstance(arguments.get("sure"), bool | None)
        and len(arguments.get("tags", [])) <= 3
        and all(isinstance(tag, str) and len(tag) <= 4 for tag in arguments.get("tags", []))
        and {"x"} <= set(place) <= {"x", "y"}
        and all(type(value) is int for value in place.values())
    )


def generated(compiler: ConstraintCompiler, name: str, seed: int, thinking: Thinking | None) -> str:
    """After 120 tokens those that close something are much more probable, and free text gets its end."""
    tokenizer = compiler.vocabulary.tokenizer
    special = {text: tokenizer.id(text) or 0 for text in tokenizer.special_texts()}
    wanted = Wanted(TOOLS, required=True, parallel=seed % 2 == 0, thinking=thinking)
    state = compiler.compile(answer_grammar(form_of(tool_format(name)), wanted, special))
    randomness = np.random.default_rng(seed)
    closing = [token for text in ('"', "}", "]", "</", "\n", "<") if (token := tokenizer.id(text)) is not None]
    closing += [*special.values(), *compiler.vocabulary.end_tokens]
    message = "<|end|><|start|>assistant<|channel|>commentary to=functions."
    end = message if name == "harmony" else thinking.end if thinking else ""
    ending, tokens = tokenizer.encode_after(end) if end else [], list[int]()
    while not state.is_finished:
        if len(tokens) > 120 and ending and state.accepts(ending) == len(ending):
            for token in ending:
                state.advance(token)
            tokens += ending
            ending = []
            continue
        assert len(tokens) < 1500, tokenizer.decode(tokens, skip_special_tokens=False)
        scores = randomness.gumbel(size=compiler.vocabulary.rows) * 2
        if len(tokens) > 120:
            scores[closing] += 100.0
        tokens.append(int(np.where(state.allowed(), scores, -np.inf).argmax()))
        state.advance(tokens[-1])
    assert state.can_end
    if tokens[-1] in compiler.vocabulary.end_tokens:
        tokens.pop()
    return tokenizer.decode(tokens, skip_special_tokens=False)


def read(name: str, text: str, thinking: Thinking | None) -> Message:
    parser = parser_of(tool_format(name), TOOLS)
    if thinking is not None:
        parser = Reasoned(ReasoningSplit(thinking.start, thinking.end, started=thinking.begun), parser)
    return assemble([*parser.push(text), *parser.finish()])


@pytest.mark.parametrize("special", [(), SPECIAL], ids=["spelled", "tokens"])
@pytest.mark.parametrize("name", NAMES)
def test_calls_are_read_and_their_arguments_valid(name: str, special: tuple[str, ...], vocabulary: Vocabulary) -> None:
    compiler = vocabulary(*special)
    reasons = name not in ("harmony", "gemma4")
    names, counts = set(), set()
    for seed in range(24):
        thinking = Thinking("<think>", "</think>", begun=seed % 3 == 1) if reasons and seed % 3 else None
        text = generated(compiler, name, seed, thinking)
        message = read(name, text, thinking)
        assert message.tool_calls, text
        talks = "<|channel|>commentary<|message|>" in text
        assert message.content == "" or talks, text
        for call in message.tool_calls:
            assert call.name == "look_up" or valid(call.parsed), text
            assert re.fullmatch(r"[A-Za-z0-9]{9}", call.id or "abcdef123")
        names |= {call.name for call in message.tool_calls}
        counts.add(len(message.tool_calls))
        assert len(message.tool_calls) == 1 or seed % 2 == 0
    assert names == {"look", "look_up"}
    assert len(counts) > 1 or name in ("harmony", "generic", "gemma3")
