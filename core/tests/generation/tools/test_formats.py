"""What is particular to each format."""

import pytest

from bestiary.generation.tools.choose import make_parser
from bestiary.generation.tools.events import CallCancel, CallEnd, CallStart, Message, Text, ToolCall, assemble

TOOLS = [
    {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "s": {"type": "string"}}}},
    {"name": "g", "parameters": {}},
]


def read(name: str, text: str, tools: list[dict[str, object]] | None = None) -> Message:
    parser = make_parser(name, TOOLS if tools is None else tools)
    return assemble([*parser.push(text), *parser.finish()])


def calls(name: str, text: str) -> list[tuple[str | None, str, str]]:
    message = read(name, text)
    assert message.content == "", message
    return [(call.id, call.name, call.arguments) for call in message.tool_calls]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', '{"a": 1}'),
        ('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', '{"a": 1}'),
        ('<tool_call>{"name": "f", "parameters": {"a": 1}}', '{"a": 1}'),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', '{"a": 1}'),
        ('<tool_call>{"name": "f", "thought": [1, {"x": "}"}]}</tool_call>', "{}"),
        ('<tool_call>[{"name": "f", "arguments": {"s": "</tool_call>"}}]</tool_call>', '{"s": "</tool_call>"}'),
        ('<tool_call>{"name": "f", "arguments": {"s": "a\nb"}}</tool_call>', '{"s": "a\\u000ab"}'),
    ],
)
def test_hermes(text: str, arguments: str) -> None:
    assert calls("hermes", text) == [(None, "f", arguments)]


@pytest.mark.parametrize(
    "text",
    [
        "\n<tool_call>",
        "<tool_call> is the tag.",
        '<tool_call>{"name": "f", "arguments": {"a": 1}} and more</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "none"}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {}, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {}, "parameters": {}}</tool_call>',
        '<tool_call>[{"name": "f", "arguments": {}}, {"name": "h", "arguments": {}}]</tool_call>',
        "<tool_call>[]</tool_call>",
        '<tool_call>{"name": 1}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        "<tool_call>{'name': 'f'}</tool_call>",
    ],
)
def test_malformed_is_text(text: str) -> None:
    assert read("hermes", text) == Message(text)


def test_a_call_after_a_malformed_one() -> None:
    message = read("hermes", 'I use <tool_call> so: <tool_call><tool_call>{"name": "g"}</tool_call>\n')
    assert message == Message("I use <tool_call> so: <tool_call>", "", (ToolCall(None, "g", "{}"),))


def test_white_space_around_calls() -> None:
    good = '<tool_call>{"name": "g"}</tool_call>'
    assert read("hermes", f"Yes.\n{good}\n\n{good} \n").content == "Yes."
    assert read("hermes", f"{good}\n\nDone. {good}").content == "\n\nDone. "


def test_a_cancelled_call_is_told_and_its_index_is_free() -> None:
    parser = make_parser("hermes", TOOLS)
    broken = '<tool_call>{"name": "f", "arguments": {"a": 1'
    events = parser.push(broken)
    assert events[0] == CallStart(0, "f")
    assert parser.push("oops ") == [CallCancel(0), Text(broken + "oops ")]
    events = parser.push('<tool_call>{"name": "g", "id": "x"}</tool_call>')
    assert events[0] == CallStart(0, "g", "x") and events[-1] == CallEnd(0)


def test_parsers_take_no_text_after_the_end() -> None:
    parser = make_parser("hermes", TOOLS)
    parser.finish()
    assert parser.finish() == []
    with pytest.raises(RuntimeError):
        parser.push("a")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"name": "f", "parameters": {"a": 1}}', ["f"]),
        (' {"type": "function", "name": "f", "parameters": {}}; {"name": "g", "parameters": {}}\n', ["f", "g"]),
        ('<|python_tag|>{"name": "f", "parameters": {}}<|python_tag|>{"name": "g"}', ["f", "g"]),
        ('<function=f>{"a": 1}</function><function=g>{}</function>', ["f", "g"]),
    ],
)
def test_llama(text: str, names: list[str]) -> None:
    assert [name for _, name, _ in calls("llama", text)] == names


@pytest.mark.parametrize(
    "text",
    [
        'Say {"name": "f", "parameters": {}}',
        '{"name": "f"}',
        '{"name": "f", "parameters": {}, "result": 1}',
        "<|python_tag|>print(1)",
        '<|python_tag|>brave_search.call(query="x")',
        "<function=f>{}",
        "<function=f>1</function>",
        " \n",
    ],
)
def test_what_is_text_to_llama(text: str) -> None:
    assert read("llama", text) == Message(text)


def test_mistral_ids() -> None:
    listed = '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "123456789"}, {"id": "2", "name": "g"}]'
    assert calls("mistral", listed) == [("123456789", "f", '{"a": 1}'), ("2", "g", "{}")]
    short = '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}'
    assert calls("mistral", short) == [("abcdefghi", "f", '{"a": 1}'), (None, "g", "{}")]


def test_qwen_coder_values() -> None:
    text = (
        "<tool_call>\n<function=f>\n<parameter=a>\n 7 \n</parameter>\n<parameter=s>\n\nsay </parameter> so\n\n"
        "</parameter>\n</function>\n</tool_call>"
    )
    message = read("qwen_coder", text)
    assert message.tool_calls[0].parsed == {"a": 7, "s": "\nsay </parameter> so\n"}
    twice = "<function=f><parameter=a>1</parameter><parameter=a>2</parameter></function>"
    assert read("qwen_coder", twice) == Message(twice)


def test_deepseek_fences_and_missing_outer_markers() -> None:
    text = '<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```<｜tool▁call▁end｜>'
    assert calls("deepseek", text) == [(None, "f", '{"a": 1}')]
    other = text.replace("function", "tool")
    assert read("deepseek", other) == Message(other)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```tool_code\nf(a=1)\n```", [("f", {"a": 1})]),
        ("Sure.\n```tool_code\nprint(f(a=1, s='x'))\n```\n", [("f", {"a": 1, "s": "x"})]),
        ('```json\n{"name": "f", "parameters": {"a": 1}}\n```', [("f", {"a": 1})]),
        ('{"name": "f", "parameters": {"a": 1}}', [("f", {"a": 1})]),
        ("[f(a=1), g()]", [("f", {"a": 1}), ("g", {})]),
        ("```tool_code\nf(1)\n```", []),
        ("```tool_code\nimport os; os.system('x')\n```", []),
        ("```tool_code\nf(a=g())\n```", []),
        ('```json\n{"city": "Paris"}\n```', []),
        ("[a link](of text)", []),
    ],
)
def test_gemma3(text: str, found: list[tuple[str, object]]) -> None:
    message = read("gemma3", text)
    assert [(call.name, call.parsed) for call in message.tool_calls] == found
    assert found or message.content == text


def test_gemma4_strings_hold_anything() -> None:
    text = '<|tool_call>call:f{a:1,s:<|"|>{"key": \'v\'}, \\n<|"|>}<tool_call|>'
    assert read("gemma4", text).tool_calls[0].parsed == {"a": 1, "s": "{\"key\": 'v'}, \\n"}


def test_glm_values() -> None:
    text = "<tool_call>f<arg_key>s</arg_key><arg_value>12</arg_value><arg_key>a</arg_key><arg_value>12</arg_value>"
    assert read("glm", f"{text}</tool_call>").tool_calls[0].parsed == {"s": "12", "a": 12}
    assert read("glm", text) == Message(text)


def test_harmony() -> None:
    text = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I call.<|end|>"
        '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
        "<|start|>assistant<|channel|>final<|message|>Done.<|return|>"
    )
    assert read("harmony", text) == Message("I call.Done.", "Hm.", (ToolCall(None, "f", '{"a": 1}'),))
    assert read("harmony", "No header.") == Message("No header.")
    cut = "<|channel|>commentary to=functions.g<|message|>"
    assert read("harmony", cut) == Message(cut)
    assert calls("harmony", f"{cut}<|call|>") == [(None, "g", "{}")]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f", "arguments": {"a": 1}} ',
        ' [{"name": "f", "parameters": {"a": 1}, "id": "x"}]',
    ],
)
def test_generic(text: str) -> None:
    assert [(call.name, call.parsed) for call in read("generic", text).tool_calls] == [("f", {"a": 1})]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f", "arguments": {"a": 1}} That was a call.',
        'A call: {"name": "f", "arguments": {"a": 1}}',
        '{"name": "f", "age": 3}',
        '{"name": "f"}',
        '[{"name": "f", "arguments": {}}, 1]',
        '{"name": "f", "arguments": {}}{"name": "f", "arguments": {}}',
        "{}",
        "[]",
        "",
    ],
)
def test_what_is_text_to_generic(text: str) -> None:
    assert read("generic", text) == Message(text)
