"""Answers read while they come: however they are cut, the same; and nothing is shown that is not for readers."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from bestiary.errors import GenerationError
from bestiary.generation.answer import AnswerReader
from bestiary.generation.completion import Chunk, Usage, collect
from bestiary.generation.conversation_stream import ChatStream
from bestiary.generation.detokenizer import Detokenizer
from bestiary.generation.stop import StopStrings
from bestiary.generation.tokenizer import Tokenizer
from bestiary.generation.tools.choose import parser_of, tool_format
from bestiary.generation.tools.events import CallEnd, Message, Reasoning, Text, ToolCall, assemble

DEMO = Path(__file__).parents[3] / "plugins/text/demo/src/bestiary_demo/model"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "s": {"type": "string"}}},
        },
    }
]
QUOTE = '<|"|>'
ANSWERS = {
    "hermes": ['<tool_call>\n{"name": "f", "arguments": {"a": 1, "s": "é😀"}}\n</tool_call>'],
    "mistral_args": ['[TOOL_CALLS]f[ARGS]{"a": 1}', '[TOOL_CALLS]f[ARGS]{"s": "😀"}'],
    "qwen_coder": ["<tool_call>\n<function=f>\n<parameter=s>\né 😀\n</parameter>\n</function>\n</tool_call>"],
    "gemma4": [f"<|channel>thought\nHm.\n<channel|><|tool_call>call:f{{a:1,s:{QUOTE}é😀{QUOTE}}}<tool_call|>"],
    "harmony": [
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant",
        '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>',
        "<|channel|>final<|message|>Yes 😀.<|end|>",
    ],
    "glm_flat": ["<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>"],
    "generic": ['{"name": "f", "arguments": {"a": 1}}'],
}
MARKERS = (
    *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<think>", "</think>", "</parameter>"),
    *("<|tool_call>", "<tool_call|>", QUOTE, "<|channel>", "<channel|>"),
    *("<|channel|>", "<|message|>", "<|constrain|>", "<|start|>", "<|end|>", "<|call|>"),
)
NOISE = ["Hello", " ", "\n", "é", "😀", "{", '"', "<|im_start|>", "<thi", "nk>", "<think>", "</think>", "st", "op"]
STOPS = [(), ("stop",), ("😀", "op\n"), ("</tool",), ("call:f",)]


@cache
def tokenizer(special: bool) -> Tokenizer:
    """The demo model's, in which all the markers are special tokens, or none is."""
    state = json.loads((DEMO / "tokenizer.json").read_text())
    added = {token["content"]: token for token in state["added_tokens"]}
    size = 1 + max(*state["model"]["vocab"].values(), *(token["id"] for token in added.values()))
    for place, text in enumerate(MARKERS if special else ()):
        if text in added:
            added[text]["special"] = True
        else:
            state["added_tokens"].append({**state["added_tokens"][0], "content": text, "id": size + place})
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    return Tokenizer(backend, special_tokens={"eos_token": "<|im_end|>"})


def end_of(spoken: Tokenizer) -> int:
    assert spoken.eos_id is not None
    return spoken.eos_id


def streamed(spoken: Tokenizer, tokens: Sequence[int], stops: Sequence[str] = (), index: int = 0) -> list[Chunk]:
    """The chunks of an engine that chose these tokens; text comes when it is whole and begins no stop string."""
    detokenizer, stopping, made = Detokenizer(spoken), StopStrings(stops), list[Chunk]()
    for place, token in enumerate(tokens):
        ended = token == spoken.eos_id
        text, stopped = stopping.push("" if ended else detokenizer.push(token))
        if not (ended or stopped or place == len(tokens) - 1):
            made.append(Chunk(text, (token,), index=index))
            continue
        if not stopped:
            tail, stopped = stopping.push(detokenizer.flush())
            text += tail + ("" if stopped else stopping.flush())
        reason = "stop" if ended or stopped else "length"
        return [*made, Chunk(text, (token,), None, reason, Usage(1, place + 1, 0.0, 0.0), index=index)]
    raise AssertionError("an answer has a token")


def grouped(chunks: Sequence[Chunk], cuts: Sequence[int]) -> list[Chunk]:
    """The same with several tokens to a chunk."""
    places = sorted({place % len(chunks) for place in cuts} - {0})
    groups = [chunks[start:end] for start, end in zip([0, *places], [*places, len(chunks)], strict=True)]
    return [
        Chunk(
            "".join(chunk.text for chunk in group),
            tuple(token for chunk in group for token in chunk.tokens),
            None,
            group[-1].finish_reason,
            group[-1].usage,
        )
        for group in groups
    ]


class Engine:
    """A stream of chunks that remembers whether it was closed."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks, self.closed = iter(chunks), 0

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def close(self) -> None:
        self.closed += 1


def reader(name: str, spoken: Tokenizer, template: str = "<think></think>") -> AnswerReader:
    return AnswerReader(template, spoken, tool_format(name))


def chat(name: str, spoken: Tokenizer, chunks: Sequence[Chunk], **more: Any) -> ChatStream:
    ends = frozenset([end_of(spoken)])
    return ChatStream(Engine(chunks), lambda: reader(name, spoken, **more).open([], TOOLS, ends))


answers = st.sampled_from(sorted(ANSWERS)).flatmap(
    lambda name: st.tuples(st.just(name), st.lists(st.sampled_from([*ANSWERS[name], *NOISE]), min_size=1, max_size=8))
)


@settings(max_examples=400, deadline=None)
@given(answers, st.booleans(), st.booleans(), st.sampled_from(STOPS), st.lists(st.integers(0, 500), max_size=12))
def test_the_cut_does_not_matter(
    answer: tuple[str, list[str]], special: bool, ends: bool, stops: tuple[str, ...], cuts: list[int]
) -> None:
    name, parts = answer
    spoken = tokenizer(special)
    tokens = [token for part in parts for token in spoken.encode_after(part)] + ([end_of(spoken)] if ends else [])
    chunks = streamed(spoken, tokens, stops)
    whole = chat(name, spoken, grouped(chunks, [])).completion()
    for way in (chunks, grouped(chunks, cuts)):
        stream = chat(name, spoken, way)
        made = list(stream)
        assert stream.message() == whole.message == assemble(event for chunk in made for event in chunk.events)
        assert "".join(chunk.text for chunk in made) == whole.text
    assert whole.message is not None and whole.message.content == whole.text
    assert sum((chunk.tokens for chunk in chunks), ()) == whole.tokens
    assert reader(name, spoken).read(collect(chunks), [], frozenset([end_of(spoken)]), TOOLS) == whole.message


@settings(max_examples=200, deadline=None)
@given(answers, st.booleans())
def test_what_is_read_is_what_a_parser_reads_in_the_whole_text(answer: tuple[str, list[str]], special: bool) -> None:
    name, parts = answer
    spoken = tokenizer(special)
    tokens = [token for part in parts for token in spoken.encode_after(part)]
    read = chat(name, spoken, streamed(spoken, tokens), template="").completion().message
    parser = parser_of(tool_format(name), TOOLS)
    expected = assemble([*parser.push(spoken.decode(tokens, skip_special_tokens=False)), *parser.finish()])
    came = {spoken.token(token) for token in tokens if spoken.is_special(token)}
    assert read == Message(without(expected.content, came), without(expected.reasoning, came), expected.tool_calls)


def without(text: str, texts: set[str]) -> str:
    for gone in texts:
        text = text.replace(gone, "")
    return text


@pytest.mark.parametrize("stop", ["stop", "<b>", "é"])
@pytest.mark.parametrize("name", ["hermes", "generic"])
def test_what_a_stop_string_cuts_off_is_not_read(name: str, stop: str) -> None:
    spoken = tokenizer(True)
    for text in (f"Yes.{stop} No.", f"<think>Hm.</think>Yes.{stop} No.", f"<think>Hm.{stop}</think>No."):
        tokens = spoken.encode_after(text + ANSWERS[name][0])
        message = chat(name, spoken, streamed(spoken, tokens, [stop])).completion().message
        reasoning, _, content = text.partition(stop)[0].rpartition("</think>")
        if text.startswith("<think>") and not reasoning:
            reasoning, content = content, ""
        assert message == Message(content, reasoning.removeprefix("<think>"))


def test_special_tokens_stand_where_the_model_wrote_them() -> None:
    """Held-back text, and characters that are not whole yet, do not move them."""
    spoken = tokenizer(True)
    half, rest = spoken.encode_after("😀")[:2], spoken.encode_after("😀")[2:]
    call = spoken.encode_after(ANSWERS["hermes"][0])
    tokens = [*spoken.encode_after("st"), *call, *spoken.encode_after("op"), end_of(spoken)]
    message = chat("hermes", spoken, streamed(spoken, tokens, ["stox"])).completion().message
    assert message is not None and message.content == "stop" and [call.name for call in message.tool_calls] == ["f"]
    start = spoken.id("<|im_start|>")
    assert start is not None
    whole = chat("hermes", spoken, streamed(spoken, [*half, start, *rest])).completion()
    assert whole.text == "😀"


def test_special_tokens_are_never_shown_and_spelled_ones_are() -> None:
    spoken, plain = tokenizer(True), tokenizer(False)
    text = 'I use <tool_call> so: <tool_call>\n{"name": "g"}\n</tool_call> <|im_start|>'
    broken = chat("hermes", spoken, streamed(spoken, spoken.encode_after(text))).completion()
    assert broken.text == 'I use  so: \n{"name": "g"}\n '
    assert broken.message == Message(broken.text)
    spelled = spoken.encode_after("The tag <tool_call> begins a call.", allow_special=False)
    assert chat("hermes", spoken, streamed(spoken, spelled)).completion().text == "The tag <tool_call> begins a call."
    told = plain.encode_after("I use <tool_call> so.")
    assert chat("hermes", plain, streamed(plain, told)).completion().text == "I use <tool_call> so."


def test_reasoning_that_the_prompt_opened_or_closed() -> None:
    spoken = tokenizer(False)
    ends = frozenset([end_of(spoken)])
    answer = streamed(spoken, [*spoken.encode_after("Hm.</think>Yes."), end_of(spoken)])

    def read(prompt: str, begun: bool | None = None) -> Message:
        stream = ChatStream(
            Engine(answer), lambda: reader("hermes", spoken).open(spoken.encode(prompt), None, ends, begun)
        )
        return stream.completion().message or Message()

    assert read("<|im_start|>assistant\n<think>\n") == Message("Yes.", "Hm.")
    assert read("Think.<|im_start|>assistant\n") == Message("Hm.</think>Yes.")
    assert read("<|im_start|>assistant\n<think>\nI say:", begun=True) == Message("Yes.", "Hm.")
    thinking = reader("hermes", spoken).thinking
    assert thinking(spoken.encode("assistant\n<think>\n\n</think>\n\n")) is None
    opened = thinking(spoken.encode("assistant\n<think>\n"))
    assert opened is not None and opened.begun


def test_a_call_ends_an_answer_with_its_own_reason() -> None:
    spoken = tokenizer(True)
    tokens = spoken.encode_after(ANSWERS["hermes"][0])
    chunks = list(chat("hermes", spoken, streamed(spoken, [*tokens, end_of(spoken)])))
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["tool_calls"]
    assert "".join(chunk.text for chunk in chunks) == "" and chunks[-1].usage is not None
    assert sum(isinstance(event, CallEnd) for chunk in chunks for event in chunk.events) == 1
    cut = chat("hermes", spoken, streamed(spoken, tokens[:-3])).completion()
    assert cut.finish_reason == "length" and cut.message == Message(cut.text) and '"name"' in cut.text
    said = chat("hermes", spoken, streamed(spoken, [*spoken.encode_after("No."), end_of(spoken)])).completion()
    assert said.finish_reason == "stop" and said.message == Message("No.")


def test_several_answers_are_read_apart() -> None:
    spoken = tokenizer(True)
    texts = ["<think>One.</think>1", ANSWERS["hermes"][0], "3"]
    tokens = [[*spoken.encode_after(text), end_of(spoken)] for text in texts]
    each = [streamed(spoken, made, (), place) for place, made in enumerate(tokens)]
    mixed = [chunk for turn in range(max(map(len, each))) for chunks in each for chunk in chunks[turn : turn + 1]]
    whole = chat("hermes", spoken, mixed).completion()
    call = ToolCall(None, "f", '{"a": 1, "s": "é😀"}')
    assert [made.message for made in whole.choices] == [Message("1", "One."), Message("", "", (call,)), Message("3")]
    assert [made.finish_reason for made in whole.choices] == ["stop", "tool_calls", "stop"]
    assert [made.text for made in whole.choices] == ["1", "", "3"]


def test_text_comes_before_the_answer_is_complete() -> None:
    spoken = tokenizer(False)
    stream = chat("hermes", spoken, streamed(spoken, spoken.encode_after("<think>Why not?</think>Yes, I do.")))
    kinds: list[type] = []
    for chunk in stream:
        kinds += [type(event) for event in chunk.events]
        if chunk.finish_reason is None and kinds.count(Text) == 1:
            assert stream.message().reasoning == "Why not?"
    assert kinds.count(Reasoning) > 2 and kinds.count(Text) > 2


def test_closing_and_errors_reach_the_engine() -> None:
    spoken = tokenizer(False)
    engine = Engine(streamed(spoken, spoken.encode_after("Hello there")))
    stream = ChatStream(engine, lambda: reader("hermes", spoken).open([], None, frozenset()))
    next(stream)
    stream.close()
    assert engine.closed == 1

    class Failing(Engine):
        def __next__(self) -> Chunk:
            raise GenerationError("A step failed.")

    with pytest.raises(GenerationError, match="A step failed"):
        next(ChatStream(Failing([]), lambda: reader("hermes", spoken).open([], None, frozenset())))


def test_forgetting_forgets_the_engine_too() -> None:
    forgotten: list[str] = []

    class Noted(Engine):
        def __del__(self) -> None:
            forgotten.append("engine")

    spoken = tokenizer(False)
    stream: Iterator[Chunk] | None = ChatStream(
        Noted(streamed(spoken, spoken.encode_after("Hello"))),
        lambda: reader("hermes", spoken).open([], None, frozenset()),
    )
    assert stream is not None
    next(stream)
    assert forgotten == []
    stream = None
    assert forgotten == ["engine"]


def test_a_tokenizer_without_pieces_gives_its_text_at_the_end(
    tokenizer_folders: dict[str, Path], folder_repository: Callable[..., Any]
) -> None:
    """Special tokens cannot be placed in a text that is no sum of pieces; they are left out of it."""
    spoken = Tokenizer.from_repository(folder_repository(tokenizer_folders["clip"]))
    assert not spoken.pieces.local
    tokens = spoken.encode("hello there")
    assert any(map(spoken.is_special, tokens))
    assert chat("generic", spoken, streamed(spoken, tokens)).completion().text == "hello there"
