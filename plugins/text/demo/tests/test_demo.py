"""The packaged model answers held-out questions, calls tools, and fits its package."""

import importlib.util
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import bestiary
import bestiary_demo
from bestiary.generation.answer import AnswerReader

HERE = Path(__file__).parent
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    """The judge of the training program."""
    spec = importlib.util.spec_from_file_location("demo_checks", HERE.parent / "training" / "checks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pipe() -> Iterator[Any]:
    # In float32, so that the same answers come on every machine.
    with bestiary.load("demo", dtype="float32", progress=False) as pipe:
        yield pipe


def test_nine_of_ten_held_out_questions_are_answered(pipe: Any, checks: ModuleType) -> None:
    sample = json.loads((HERE / "heldout.json").read_text())
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for item in sample:
        variables = {"enable_thinking": item.get("enable_thinking", False)}
        answer = pipe.chat(
            item["messages"], tools=item.get("tools"), template_variables=variables, temperature=0.0, max_tokens=128
        )
        asked[item["kind"]] += 1
        right[item["kind"]] += checks.passes(item["check"], pipe.detokenize(answer.tokens))
    assert len(sample) >= 100 and len(asked) >= 8
    assert sum(right.values()) >= 0.9 * len(sample), {kind: f"{right[kind]} of {asked[kind]}" for kind in asked}


def test_the_judge_refuses_wrong_answers(checks: ModuleType) -> None:
    assert not checks.passes({"number": 72}, "27 + 45 = 71")
    assert not checks.passes({"json": {"a": 1}}, '{"a": 1')
    call = {"name": "get_weather", "arguments": {"city": "Oslo"}}
    assert not checks.passes({"tool_call": call}, "<tool_call>\n{}\n</tool_call>")
    assert checks.passes({"tool_call": call}, f"<tool_call>\n{json.dumps(call)}\n</tool_call>")


def test_it_calls_a_tool_and_answers_from_its_result(pipe: Any) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    answer = pipe.chat(messages, tools=[WEATHER], temperature=0.0)
    (call,) = answer.message.tool_calls
    assert (call.name, call.parsed) == ("get_weather", {"city": "Oslo"})
    assert not answer.message.content
    function = {"name": call.name, "arguments": call.parsed}
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "content": '{"temperature": 7, "condition": "rain"}'},
    ]
    result = pipe.chat(messages, tools=[WEATHER], temperature=0.0)
    assert "7" in result.message.content and not result.message.tool_calls


def test_a_call_of_a_tool_that_was_not_offered_is_text(pipe: Any) -> None:
    messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
    prompt = pipe.tokenize_chat(messages, tools=[WEATHER])
    answer = pipe.generate(prompt, temperature=0.0)
    assert answer.message is None and answer.text.startswith("<tool_call>")
    reader = AnswerReader(pipe.chats.template.templates["default"], pipe.tokenizer)
    message = reader.read(answer, prompt, pipe.engine.end_tokens, None)
    assert message.content == answer.text and not message.tool_calls


def test_it_thinks_first_when_asked(pipe: Any) -> None:
    thinking = {"enable_thinking": True}
    answer = pipe.chat("What is 58 + 37?", template_variables=thinking, temperature=0.0)
    assert answer.message.content.strip() == "58 + 37 = 95"
    assert "carry" in answer.message.reasoning and "</think>" not in answer.message.reasoning
    plain = pipe.chat("What is 58 + 37?", temperature=0.0).message
    assert "95" in plain.content and not plain.reasoning


def test_the_package_is_small() -> None:
    files = [path for path in bestiary_demo.folder().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000


def test_it_has_between_one_and_four_million_parameters(pipe: Any) -> None:
    assert 1_000_000 <= sum(parameter.numel() for parameter in pipe.model.parameters()) <= 4_000_000


def test_a_folder_called_demo_is_reached_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    with bestiary.load("demo", progress=False) as packaged:
        assert packaged.identified.repository.root == bestiary_demo.folder().resolve()
    with pytest.raises(bestiary.BestiaryError, match=r"config\.json"):
        bestiary.load("./demo", progress=False)
