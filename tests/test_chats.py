"""Chats with the packaged model through the engine: sums, JSON, tools and reasoning, streamed and not."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

import bestiary
from bestiary.errors import OptionError, RequestError
from bestiary.generation.tools.events import CallEnd, CallStart, Event, Reasoning, Text, assemble

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module", params=[None, "ngram"])
def pipe(request: pytest.FixtureRequest) -> Iterator[Any]:
    with bestiary.load("demo", progress=False, draft=request.param) as made:
        yield made


def streamed(pipe: Any, messages: Any, **options: Any) -> tuple[str, list[Event], str]:
    text, events, reason = "", [], ""
    for chunk in pipe.stream_chat(messages, **options):
        text += chunk.text
        events += chunk.events
        reason = chunk.finish_reason or reason
    return text, events, reason


@pytest.mark.parametrize("question, answer", [("What is 27 + 45?", "72"), ("What is the capital of France?", "Paris")])
def test_questions(pipe: Any, question: str, answer: str) -> None:
    whole = pipe.chat(question)
    assert answer in whole.text and whole.message.content == whole.text and whole.finish_reason == "stop"
    text, events, reason = streamed(pipe, question)
    assert (text, reason) == (whole.text, "stop")
    assert all(isinstance(event, Text) for event in events) and assemble(events) == whole.message


def test_a_tool_call_and_the_answer_from_its_result(pipe: Any) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather in Paris?"}]
    whole = pipe.chat(messages, tools=[WEATHER])
    (call,) = whole.message.tool_calls
    assert (call.name, call.parsed) == ("get_weather", {"city": "Paris"})
    assert whole.finish_reason == "tool_calls" and whole.text == "" and "<tool_call>" not in whole.text
    text, events, reason = streamed(pipe, messages, tools=[WEATHER])
    assert (text, reason) == ("", "tool_calls") and assemble(events) == whole.message
    assert isinstance(events[0], CallStart) and isinstance(events[-1], CallEnd)
    messages += [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": json.dumps({"temperature": 21, "sky": "sunny"})},
    ]
    assert "21" in pipe.chat(messages, tools=[WEATHER]).text


def test_reasoning_stands_apart(pipe: Any) -> None:
    whole = pipe.chat("What is 12 + 30?", enable_thinking=True)
    assert "carry" in whole.message.reasoning and "42" in whole.text and "<think>" not in whole.text
    text, events, _ = streamed(pipe, "What is 12 + 30?", enable_thinking=True)
    assert text == whole.text and assemble(events) == whole.message
    assert any(isinstance(event, Reasoning) for event in events)
    assert pipe.chat("What is 12 + 30?", enable_thinking=False).message.reasoning == ""


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_time"}}])
def test_a_call_that_must_come_comes(pipe: Any, choice: Any) -> None:
    """Whatever is asked, and even when tokens are drawn."""
    for seed in range(4):
        whole = pipe.chat(
            "Hello! Who are you?",
            tools=[WEATHER, CLOCK],
            tool_choice=choice,
            temperature=1.5,
            seed=seed,
            max_tokens=200,
        )
        if whole.finish_reason == "length":
            continue
        assert whole.finish_reason == "tool_calls"
        for call in whole.message.tool_calls:
            assert set(call.parsed) == {"city"} and isinstance(call.parsed["city"], str)
            assert call.name in (("get_time",) if isinstance(choice, dict) else ("get_weather", "get_time"))


def test_no_call_where_none_may_come(pipe: Any) -> None:
    whole = pipe.chat("What is the weather in Paris?", tools=[WEATHER], tool_choice="none")
    assert whole.message.tool_calls == () and whole.finish_reason == "stop"


def test_json_by_a_schema(pipe: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
        "required": ["city", "country"],
        "additionalProperties": False,
    }
    whole = pipe.chat("Give me Paris as JSON", grammar=schema)
    assert json.loads(whole.text) == {"city": "Paris", "country": "France"}
    text, _, _ = streamed(pipe, "Give me Paris as JSON", grammar=schema)
    assert text == whole.text


def test_several_answers_each_have_a_message(pipe: Any) -> None:
    whole = pipe.chat("What is the weather in Oslo?", tools=[WEATHER], n=3, temperature=0.7, seed=1)
    assert len(whole.choices) == 3 and all(each.message is not None for each in whole.choices)
    assert whole.choices[0].message.tool_calls


def test_echo_and_prompt_logprobs_of_a_completion(pipe: Any) -> None:
    plain = pipe.generate("The capital of", max_tokens=5)
    whole = pipe.generate("The capital of", max_tokens=5, echo=True, prompt_logprobs=1)
    assert whole.text == "The capital of" + plain.text and whole.tokens == plain.tokens
    assert len(whole.prompt_logprobs) == len(pipe.tokenize("The capital of")) - 1
    again = pipe.generate(pipe.tokenize("The capital of"), max_tokens=5, echo=True)
    assert again.text == whole.text
    with pytest.raises(OptionError, match="echo"):
        pipe.chat("Hello", echo=True)


@pytest.mark.parametrize(
    "options, error",
    [
        ({"tool_choice": "required"}, RequestError),
        ({"tools": [WEATHER], "tool_choice": "maybe"}, OptionError),
        ({"tools": "weather"}, RequestError),
        ({"tools": [WEATHER], "grammar": {"type": "object"}}, OptionError),
        ({"reasoning_effort": "enormous"}, OptionError),
        ({"adapter": "none such"}, RequestError),
        ({"timeout": -1}, OptionError),
        ({"temprature": 1}, OptionError),
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(pipe: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        pipe.chat("Hello", **options)
