"""Calls and their results in messages, against what transformers renders of the form that its guide asks for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from bestiary.errors import BestiaryError, RequestError
from bestiary.generation.chat import ChatEncoder
from bestiary.generation.conversation import Conversations
from bestiary.generation.conversation_messages import with_calls
from bestiary.generation.template import ChatTemplate
from bestiary.generation.tokenizer import Tokenizer
from bestiary.generation.tools.events import Message, ToolCall

DEMO = Path(__file__).parents[3] / "plugins/text/demo/src/bestiary_demo/model"
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "A city"},
                    "days": {"type": "integer", "description": "How many"},
                },
                "required": ["city"],
            },
        },
    }
]
ARGUMENTS = {"city": "São Paulo", "days": 2}
TEXT = json.dumps(ARGUMENTS, ensure_ascii=False)


def messages(arguments: Any, *, name: bool = True, **call: Any) -> list[dict[str, Any]]:
    function = {"name": "get_weather", "arguments": arguments}
    made = {"role": "assistant", **call, "tool_calls": [{"id": "abcdef123", "type": "function", "function": function}]}
    result = {"role": "tool", "tool_call_id": "abcdef123", "content": '{"temperature": 20}'}
    named = {"name": "get_weather"} if name else {}
    return [{"role": "user", "content": "What is the weather?"}, made, {**result, **named}]


CLIENTS = messages(TEXT, name=False, content=None)
"""As clients of the OpenAI API send them."""
FORMS = (messages(ARGUMENTS), messages(ARGUMENTS, content=""), messages(TEXT), messages(TEXT, content=""))
"""What templates want; the first that one renders is right."""
REFUSED = {
    "Kimi-K2-Instruct": "appends to a list, which the sandbox forbids",
    "Kimi-K2-Thinking": "appends to a list, which the sandbox forbids",
    "fireworks-ai-llama-3-firefunction-v2": "asks for another variable than tools",
    "llama-cpp-deepseek-r1": "prints a generator as JSON",
    "google-gemma-2-2b-it": "does not know tools",
    "HuggingFaceTB-SmolLM3-3B": "does not know tools",
    "llama-cpp-rwkv-world": "does not know tools",
    "microsoft-Phi-3.5-mini-instruct": "does not know tools",
}


@pytest.fixture(scope="module")
def tokenizer(folder_repository: Callable[..., Any]) -> Tokenizer:
    return Tokenizer.from_repository(folder_repository(DEMO))


def test_every_template_gets_calls_as_it_wants_them(shared_data: Path, tokenizer: Tokenizer) -> None:
    reference = AutoTokenizer.from_pretrained(str(DEMO))
    refused, forms = set(), list[int]()
    for file in sorted((shared_data / "chat_templates/llama.cpp").glob("*.jinja")):
        template = ChatTemplate(file.read_text(), source=file.name, special_tokens=tokenizer.special_tokens)
        chats = Conversations(ChatEncoder(template, tokenizer), frozenset())
        try:
            text = chats.render(CLIENTS, {"tools": TOOLS})
        except BestiaryError:
            refused.add(file.stem)
            continue
        place, expected = rendered(reference, file.read_text())
        assert text == expected, file.name
        forms.append(place)
    assert refused == set(REFUSED)
    assert {place: forms.count(place) for place in set(forms)} == {0: 53, 1: 8, 2: 1}


def rendered(reference: Any, template: str) -> tuple[int, str]:
    for place, form in enumerate(FORMS):
        try:
            text = reference.apply_chat_template(
                form, tools=TOOLS, chat_template=template, tokenize=False, add_generation_prompt=True
            )
        except Exception:  # jinja2's errors and those of the template's own operations
            continue
        if str(ARGUMENTS) not in str(text):
            return place, str(text)
    raise AssertionError("transformers renders none of them")


def test_arguments_printed_by_python_become_a_text(tokenizer: Tokenizer) -> None:
    """`~` makes a text of anything, so nothing fails."""
    call = "{{ c.function.name ~ c.function.arguments }}"
    jinja = f"{{% for m in messages %}}{{% for c in m.tool_calls or [] %}}{call}{{% endfor %}}{{% endfor %}}"
    chats = Conversations(ChatEncoder(ChatTemplate(jinja, source="test"), tokenizer), frozenset())
    assert chats.render(CLIENTS, {}) == f"get_weather{TEXT}"
    whatever = f"Is {ARGUMENTS} Python?"
    assert chats.render([{"role": "user", "content": whatever}, *CLIENTS[1:]], {}) == f"get_weather{TEXT}"


def test_calls_in_every_form_become_one() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}

    def only(call: Any) -> Any:
        return with_calls([{"role": "assistant", "tool_calls": [call]}])[0]["tool_calls"][0]

    assert only(call) == call
    assert only({"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}) == call
    assert only({"id": "1", "name": "f", "arguments": {"a": 1}}) == call
    assert only(ToolCall("1", "f", '{"a": 1}')) == call
    assert only({"function": {"name": "f"}}) == {"type": "function", "function": {"name": "f", "arguments": {}}}
    assert only({"function": {"name": "f", "arguments": ""}})["function"]["arguments"] == {}
    for text in ('{"a": 1', "[1]", "NaN", "[" * 100_000):
        assert only({"function": {"name": "f", "arguments": text}})["function"]["arguments"] == text
    kept = {"id": "1", "index": 0, "function": {"name": "f", "arguments": {}, "more": 1}}
    assert only(kept) == {**kept, "type": "function"}


def test_an_answer_is_a_message() -> None:
    answer = Message("Wait.", "Hm.", (ToolCall("7", "f", "{}"), ToolCall(None, "g", '{"a": "b"}')))
    result = {"role": "tool", "tool_call_id": "7", "content": "1"}
    made = with_calls([{"role": "user", "content": "Hi"}, answer, result])
    assert made == [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "Wait.",
            "reasoning_content": "Hm.",
            "tool_calls": [
                {"id": "7", "type": "function", "function": {"name": "f", "arguments": {}}},
                {"type": "function", "function": {"name": "g", "arguments": {"a": "b"}}},
            ],
        },
        {**result, "name": "f"},
    ]
    assert with_calls([Message("Yes.")]) == [{"role": "assistant", "content": "Yes."}]


def test_results_get_the_name_of_their_tool_and_nothing_else() -> None:
    calls = [{"id": id, "function": {"name": name}} for id, name in (("1", "f"), ("2", "g"))]
    results: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": "2", "content": ""},
        {"role": "tool", "tool_call_id": "1", "name": "mine", "content": ""},
        {"role": "tool", "tool_call_id": "3", "content": ""},
        {"role": "tool", "tool_call_id": ["1"], "content": ""},
        {"role": "user", "tool_call_id": "1", "content": ""},
    ]
    made = with_calls([{"role": "assistant", "tool_calls": calls}, *results])[1:]
    assert made == [{**results[0], "name": "g"}, *results[1:]]


def test_messages_of_the_caller_are_not_changed() -> None:
    given = messages(TEXT, name=False, content=None)
    before = json.dumps(given)
    with_calls(given)
    assert json.dumps(given) == before


@pytest.mark.parametrize("given", ["Hi", b"Hi", None, 5, {"role": "user"}])
def test_what_is_no_list_is_left_to_the_encoder(given: Any) -> None:
    assert with_calls(given) is given


@pytest.mark.parametrize(
    "calls",
    [
        "f",
        {"name": "f"},
        3,
        ["f"],
        [None],
        [{}],
        [{"function": "f"}],
        [{"function": {"name": 3}}],
        [{"name": "f", "arguments": [1]}],
        [{"name": "f", "arguments": 1.5}],
    ],
)
def test_malformed_calls_are_refused(calls: Any) -> None:
    with pytest.raises(RequestError) as raised:
        with_calls([{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": calls}])
    assert (raised.value.where or "").startswith("messages/1/tool_calls")
