"""Chats with the packaged model, which was trained on calls of tools: from its engine, by hand."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

import bestiary
from bestiary.generation.completion import Chunk
from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.conversation import Conversations
from bestiary.generation.conversation_stream import ChatStream
from bestiary.generation.sampling import Sampling
from bestiary.generation.tools.events import CallArguments, CallEnd, CallStart, Message

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
UNITS = {
    "type": "object",
    "properties": {"unit": {"enum": ["kelvin"]}, "city": {"type": "string", "maxLength": 16}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
LOOSE: dict[str, Any] = {"type": "function", "function": {**WEATHER["function"], "parameters": UNITS}}
STRICT = {"type": "function", "function": {**LOOSE["function"], "strict": True}}
QUESTION = "What is the weather in Paris?"


class Demo:
    """The model, with what a pipeline has."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.chats = Conversations(pipe.chats, pipe.engine.end_tokens)
        self.compiler = ConstraintCompiler(pipe.tokenizer, pipe.model.vocab_size, pipe.engine.end_tokens)

    def stream(self, messages: Any, **options: Any) -> ChatStream:
        request = self.chats.request(messages, options)
        state = None if request.grammar is None else self.compiler.compile(request.grammar)
        sampling = Sampling(**{"max_tokens": 120, **request.options})
        return request.follow(self.pipe.engine.stream(request.tokens, sampling, constraint=state))

    def answer(self, messages: Any, **options: Any) -> Message:
        message = self.stream(messages, **options).completion().message
        assert message is not None
        return message


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with bestiary.load("demo", device="cpu", dtype="float32", progress=False) as pipe:
        yield Demo(pipe)


def test_a_call_its_result_and_the_answer(demo: Demo) -> None:
    conversation: list[Any] = [{"role": "user", "content": QUESTION}]
    first = demo.answer(conversation, tools=[WEATHER])
    [call] = first.tool_calls
    assert (call.name, call.parsed, first.content) == ("get_weather", {"city": "Paris"}, "")
    result = json.dumps({"temperature": 20, "sky": "sunny"})
    conversation += [first, {"role": "tool", "content": result}]
    second = demo.answer(conversation, tools=[WEATHER])
    assert "20" in second.content and "sunny" in second.content and not second.tool_calls


def test_calls_stream_as_they_are_written(demo: Demo) -> None:
    chunks = list(demo.stream(QUESTION, tools=[WEATHER]))
    events = [event for chunk in chunks for event in chunk.events]
    assert events[0] == CallStart(0, "get_weather") and events[-1] == CallEnd(0)
    pieces = [event.text for event in events if isinstance(event, CallArguments)]
    assert len(pieces) > 3 and json.loads("".join(pieces)) == {"city": "Paris"}
    assert "".join(chunk.text for chunk in chunks) == "" and chunks[-1].finish_reason == "tool_calls"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == sum(len(c.tokens) for c in chunks)


def test_a_greeting_becomes_a_call_where_one_is_required(demo: Demo) -> None:
    assert demo.answer("Hello!", tools=[WEATHER]) == Message("Hello! How can I help you?")
    for seed in range(6):
        options: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False, "enable_thinking": False}
        forced = demo.answer("Hello!", tools=[WEATHER], temperature=0.9, seed=seed, **options)
        [call] = forced.tool_calls
        assert call.name == "get_weather" and isinstance(call.parsed["city"], str) and forced.content == ""


def test_strict_arguments_satisfy_a_schema_that_the_model_never_saw(demo: Demo) -> None:
    """Left alone it leaves the unit out."""
    assert set(demo.answer(QUESTION, tools=[LOOSE]).tool_calls[0].parsed) == {"city"}
    assert demo.answer(QUESTION, tools=[STRICT]).tool_calls[0].parsed == {"unit": "kelvin", "city": "Paris"}
    for seed in range(6):
        [call] = demo.answer(QUESTION, tools=[STRICT], temperature=0.8, seed=seed).tool_calls
        assert set(call.parsed) == {"city", "unit"} and call.parsed["unit"] == "kelvin"
        assert len(call.parsed["city"]) <= 16
    assert demo.answer("Hello!", tools=[STRICT]) == Message("Hello! How can I help you?")


def test_tools_that_must_not_be_called_are_not(demo: Demo) -> None:
    kept = demo.answer(QUESTION, tools=[WEATHER], tool_choice="none")
    assert not kept.tool_calls and "<tool_call>" not in kept.content
    assert kept == demo.answer(QUESTION)


def test_reasoning_is_apart_and_a_call_comes_after_it(demo: Demo) -> None:
    thought = demo.answer("What is 3 plus 4?", enable_thinking=True)
    assert "7" in thought.content and thought.reasoning and "think>" not in thought.content + thought.reasoning
    forced = demo.answer("What is 3 plus 4?", enable_thinking=True, tools=[WEATHER], tool_choice="required")
    assert forced.reasoning and forced.tool_calls and forced.content == ""
    plain = demo.answer("What is 3 plus 4?", enable_thinking=False)
    assert "7" in plain.content and plain.reasoning == ""
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    typed = demo.answer("What is 3 plus 4?", enable_thinking=True, grammar={**schema, "additionalProperties": False})
    assert typed.reasoning and isinstance(json.loads(typed.content)["sum"], int)


def test_a_stop_string_ends_the_content(demo: Demo) -> None:
    cut = demo.stream("Hello!", stop=["can"]).completion()
    assert cut.text == "Hello! How " and cut.message == Message("Hello! How ") and cut.finish_reason == "stop"


def test_closing_a_chat_stops_the_engine(demo: Demo) -> None:
    stream = demo.stream("Count from one to twenty.", max_tokens=100)
    chunk: Chunk = next(stream)
    assert chunk.finish_reason is None
    stream.close()
    assert list(stream) == []
