"""From messages and options to a prompt, a grammar and a reader."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from bestiary.errors import InvalidPlugin, OptionError, RequestError, TemplateError
from bestiary.generation.chat import ChatEncoder
from bestiary.generation.completion import Chunk, Usage
from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.constraints.grammar import Grammar, json_schema
from bestiary.generation.conversation import OPTIONS, ChatRequest, Conversations
from bestiary.generation.template import ChatTemplate
from bestiary.generation.tokenizer import Tokenizer
from bestiary.generation.tools.events import Message, ToolCall
from bestiary.records import ToolFormat
from bestiary.registry import Plugin, default_registry

DEMO = Path(__file__).parents[3] / "plugins/text/demo/src/bestiary_demo/model"
TEMPLATE = (DEMO / "chat_template.jinja").read_text()
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "f", "description": "F.", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
]
STRICT = [{"type": "function", "function": {**tool["function"], "strict": True}} for tool in TOOLS]
F = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
G = '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
WRONG = F.replace("1", '"1"')
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}


@pytest.fixture(scope="module")
def tokenizer(folder_repository: Callable[..., Any]) -> Tokenizer:
    return Tokenizer.from_repository(folder_repository(DEMO))


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> ConstraintCompiler:
    return ConstraintCompiler(tokenizer, tokenizer.vocab_size, [tokenizer.eos_id or 0])


def chats(tokenizer: Tokenizer, template: str | Mapping[str, str] = TEMPLATE, **more: Any) -> Conversations:
    encoder = ChatEncoder(ChatTemplate(template, source="test", special_tokens=tokenizer.special_tokens), tokenizer)
    return Conversations(encoder, frozenset([tokenizer.eos_id or 0]), **more)


def takes(compiler: ConstraintCompiler, grammar: Grammar | None, text: str) -> bool:
    assert grammar is not None
    state = compiler.compile(grammar)
    tokens = compiler.vocabulary.tokenizer.encode_after(text)
    if state.accepts(tokens) != len(tokens):
        return False
    for token in tokens:
        state.advance(token)
    return state.can_end


def answered(request: ChatRequest, tokenizer: Tokenizer, text: str) -> Message | None:
    tokens = (*tokenizer.encode_after(text), tokenizer.eos_id or 0)

    class Engine:
        chunks = iter([Chunk(text, tokens, None, "stop", Usage(1, len(tokens), 0.0, 0.0))])

        def __next__(self) -> Chunk:
            return next(self.chunks)

        def close(self) -> None: ...

    return request.follow(Engine()).completion().message


# The prompt


def test_prompts_are_those_of_transformers(tokenizer: Tokenizer) -> None:
    reference = AutoTokenizer.from_pretrained(str(DEMO))
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Call f with 1."}]
    offers: list[Any] = [None, TOOLS, [TOOLS[1]]]
    for tools in offers:
        expected = reference.apply_chat_template(
            conversation, tools=tools, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        request = chats(tokenizer).request(conversation, {"tools": tools})
        assert request.tokens == expected == chats(tokenizer).encode(conversation, {"tools": tools})


def test_the_prompt_has_the_tools_that_may_be_called(tokenizer: Tokenizer) -> None:
    def shown(**options: Any) -> list[str]:
        text = chats(tokenizer).render("Hi", {"tools": STRICT, **options})
        return [name for name in "fg" if f'"name": "{name}"' in text]

    only_g = {"type": "function", "function": {"name": "g"}}
    assert shown() == shown(tool_choice="auto") == shown(tool_choice="required") == ["f", "g"]
    assert shown(tool_choice="none") == []
    assert shown(tool_choice=only_g) == ["g"]
    assert shown(tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"name": "f"}]}) == ["f"]
    assert chats(tokenizer).render("Hi", {"tools": STRICT}) == chats(tokenizer).render("Hi", {"tools": TOOLS})
    bare = [tool["function"] for tool in TOOLS]
    assert chats(tokenizer).render("Hi", {"tools": bare}) == chats(tokenizer).render("Hi", {"tools": TOOLS})
    assert chats(tokenizer).render("Hi", {"tools": []}) == chats(tokenizer).render("Hi", {})


def test_the_template_for_tools_is_taken_where_there_are_any(tokenizer: Tokenizer) -> None:
    both = {"default": "plain", "tool_use": TEMPLATE}
    assert chats(tokenizer, both).render("Hi", {}) == "plain"
    assert chats(tokenizer, both).render("Hi", {"tools": TOOLS, "tool_choice": "none"}) == "plain"
    request = chats(tokenizer, both).request("Hi", {"tools": TOOLS})
    assert request.reader.format is not None and request.reader.format.name == "hermes"


def test_options_go_where_they_belong(tokenizer: Tokenizer) -> None:
    jinja = "{{ documents }}{{ add_generation_prompt }}{{ colour }}"
    options = {"documents": [{"text": "d"}], "add_generation_prompt": False, "template_variables": {"colour": "red"}}
    request = chats(tokenizer, jinja).request("Hi", {**options, "temperature": 0.5, "stop_tokens": (7,), "unknown": 1})
    assert tokenizer.decode(request.tokens) == "[{'text': 'd'}]Falsered"
    assert request.options == {"temperature": 0.5, "stop_tokens": (7,), "unknown": 1}
    assert request.ends == {7, tokenizer.eos_id}
    for use in (chats(tokenizer, jinja).render, chats(tokenizer, jinja).encode):
        with pytest.raises(OptionError, match="temperature"):
            use("Hi", {"temperature": 0.5})
        with pytest.raises(OptionError) as raised:
            use("Hi", {"tool_choise": "none"})
        assert "tool_choice" in (raised.value.fix or "")
    assert chats(tokenizer, jinja).request("Hi", {"stop_tokens": [[1], "a"]}).ends == {tokenizer.eos_id}
    assert {*options, "tools", "tool_choice", "grammar", "enable_thinking"} <= set(OPTIONS)


def test_templates_that_show_no_tools(tokenizer: Tokenizer) -> None:
    jinja = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(RequestError, match="does not show it any tools"):
        chats(tokenizer, jinja).request("Hi", {"tools": TOOLS})
    assert chats(tokenizer, jinja).request("Hi", {"tools": TOOLS, "tool_choice": "none"}).grammar is None
    told = chats(tokenizer, jinja).request("Hi", {"tools": TOOLS, "tool_format": "generic"})
    named = chats(tokenizer, jinja, tool_format="gemma3").request("Hi", {"tools": TOOLS})
    assert [request.reader.format and request.reader.format.name for request in (told, named)] == ["generic", "gemma3"]
    call = answered(named, tokenizer, "```tool_code\nf(a=1)\n```")
    assert call is not None and call.tool_calls == (ToolCall(None, "f", '{"a": 1}'),)


# What an answer may be


def test_only_what_must_be_enforced_has_a_grammar(tokenizer: Tokenizer) -> None:
    def grammar(**options: Any) -> Grammar | None:
        return chats(tokenizer).request("Hi", options).grammar

    assert grammar() is grammar(tools=TOOLS) is grammar(tools=TOOLS, parallel_tool_calls=True) is None
    assert grammar(tools=STRICT, tool_choice="none") is None
    assert grammar(parallel_tool_calls=False) is None
    assert grammar(grammar={"type": "text"}) is None
    assert grammar(grammar=SCHEMA) == json_schema(SCHEMA) == grammar(tools=TOOLS, tool_choice="none", grammar=SCHEMA)


@pytest.mark.parametrize(
    ("options", "right", "wrong"),
    [
        ({"tools": STRICT}, ["Hi.", F, f"Hi.\n{F}\n{G}"], [WRONG, f"Hi.\n{WRONG}", "Hi <tool_call>"]),
        ({"tools": TOOLS, "tool_choice": "required"}, [F, G, f"{F}\n{G}"], ["Hi.", "", WRONG, f"Hi.\n{F}"]),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "g"}}, [G], [F, "Hi."]),
        ({"tools": TOOLS, "parallel_tool_calls": False}, ["Hi.", F, f"Hi.\n{F}"], [f"{F}\n{G}"]),
        ({"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}, [F, G], ["Hi.", f"{F}\n{G}"]),
        (
            {"tools": STRICT, "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"name": "g"}]}},
            [G, f"<think>Hm.</think>\n\n{G}"],
            [F, "Hi."],
        ),
        ({"tools": STRICT, "enable_thinking": True}, [f"Hm.\n</think>\n{F}", "Hm.</think>Hi."], [F, "Hi."]),
        ({"tools": TOOLS, "tool_choice": "required", "enable_thinking": False}, [F], [f"<think>Hm.</think>{F}"]),
        (
            {"tools": TOOLS, "tool_choice": "required", "enable_thinking": True},
            [f"Hm.</think>{F}"],
            [F, "Hm.</think>Hi.", f"<tool_call></think>{F}"],
        ),
        ({"grammar": SCHEMA, "enable_thinking": True}, ['Hm.</think>\n{"x": 1}'], ['{"x": 1}', "Hm.</think>{}"]),
        ({"tools": TOOLS, "tool_choice": "required", "tool_format": "llama"}, ['{"name": "g", "parameters": {}}'], [G]),
    ],
)
def test_grammars(
    options: dict[str, Any], right: list[str], wrong: list[str], tokenizer: Tokenizer, compiler: ConstraintCompiler
) -> None:
    made = chats(tokenizer).request("Hi", options).grammar
    for text in right:
        assert takes(compiler, made, text), text
    for text in wrong:
        assert not takes(compiler, made, text), text


# What does not go


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"tools": "f"}, RequestError, "must be a list"),
        ({"tools": TOOLS, "tool_choice": "requird"}, OptionError, "requird"),
        ({"tool_choice": "required"}, RequestError, "no tools are offered"),
        ({"tools": TOOLS, "parallel_tool_calls": "no"}, OptionError, "parallel_tool_calls"),
        ({"tools": TOOLS, "tool_format": "hermess"}, OptionError, "'hermess'"),
        ({"tools": TOOLS, "tool_format": ["hermes"]}, OptionError, r"\['hermes'\]"),
        ({"tools": TOOLS, "tool_format": ""}, OptionError, "no tool-call format ''"),
        ({"tools": TOOLS, "grammar": SCHEMA}, OptionError, "does not go together with tools"),
        ({"grammar": {"type": "json_schema"}}, RequestError, "no schema"),
        ({"template_variables": 3}, OptionError, "template_variables"),
        ({"template_variables": {"messages": []}}, OptionError, "messages"),
        ({"continue_final_message": True, "add_generation_prompt": True}, OptionError, "exclude each other"),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], match: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(error, match=match):
        chats(tokenizer).request("Hi", options)


def test_what_a_strict_tool_cannot_have(tokenizer: Tokenizer) -> None:
    schema = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
    tools = [{"name": "f", "parameters": schema, "strict": True}]
    with pytest.raises(RequestError, match='"not"') as raised:
        chats(tokenizer).request("Hi", {"tools": tools})
    assert raised.value.where == "tools/0 (f): #/properties/a/not"


def test_formats_without_a_form_cannot_be_enforced(tokenizer: Tokenizer) -> None:
    format = ToolFormat("toad", "bestiary.generation.tools.hermes:HermesParser", present=("<tool_call>",))
    registry = replace(default_registry(), plugins=(Plugin("pond", "bestiary-pond", "1", "pond", (format,)),))
    made = chats(tokenizer, registry=registry)
    request = made.request("Hi", {"tools": TOOLS})
    assert request.reader.format == format and request.grammar is None
    found = answered(request, tokenizer, f"Yes.\n{F}")
    assert found == Message("Yes.", "", (ToolCall(None, "f", '{"a": 1}'),))
    for options in ({"tool_choice": "required"}, {"parallel_tool_calls": False}, {"tools": STRICT}):
        with pytest.raises(OptionError, match="'toad' can be read, but not enforced"):
            made.request("Hi", {"tools": TOOLS, **options})
    twice = replace(registry, plugins=(*registry.plugins, Plugin("lake", "bestiary-lake", "1", "lake", (format,))))
    with pytest.raises(InvalidPlugin, match="bestiary-lake, bestiary-pond"):
        chats(tokenizer, registry=twice).request("Hi", {"tools": TOOLS})


def test_what_the_template_does_wrong(tokenizer: Tokenizer) -> None:
    calls = [{"role": "assistant", "tool_calls": [{"name": "f"}]}]
    for jinja in ("{{ raise_exception('no') }}{# tools #}", "{{ nothing.at.all }}"):
        with pytest.raises(TemplateError):
            chats(tokenizer, jinja).request(calls, {})
    with pytest.raises(RequestError):
        chats(tokenizer).request(5, {})


# How answers are read


def test_answers_are_read_with_the_tools_that_may_be_called(tokenizer: Tokenizer) -> None:
    text = f"Yes.\n{F}\n{G}"
    both = answered(chats(tokenizer).request("Hi", {"tools": TOOLS}), tokenizer, text)
    assert both is not None and both.content == "Yes." and [call.name for call in both.tool_calls] == ["f", "g"]
    only_f = {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "f"}]}
    one = answered(chats(tokenizer).request("Hi", {"tools": TOOLS, "tool_choice": only_f}), tokenizer, text)
    assert one is not None and [call.name for call in one.tool_calls] == ["f"] and one.content == f"Yes.{G}"
    for options in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        assert answered(chats(tokenizer).request("Hi", options), tokenizer, text) == Message(text)


def test_a_forced_format_reads_too(tokenizer: Tokenizer) -> None:
    request = chats(tokenizer).request("Hi", {"tools": TOOLS, "tool_format": "mistral"})
    call = (ToolCall(None, "f", '{"a": 1}'),)
    assert answered(request, tokenizer, '[TOOL_CALLS]f[ARGS]{"a": 1}') == Message("", "", call)
    assert answered(request, tokenizer, F) == Message(F)


def test_a_message_that_is_continued(tokenizer: Tokenizer, compiler: ConstraintCompiler) -> None:
    def continued(content: Any, **options: Any) -> ChatRequest:
        messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": content}]
        jinja = "{% for m in messages %}{{ m.content }}|{% endfor %}{# tools <think></think> #}"
        base = {"continue_final_message": True, "tools": TOOLS, "tool_format": "hermes"}
        return chats(tokenizer, jinja).request(messages, {**base, **options})

    assert answered(continued("<think>I think"), tokenizer, " so.</think>Yes.") == Message("Yes.", " so.")
    parts = [{"type": "text", "text": "<think>I think"}]
    assert answered(continued(parts), tokenizer, " so.</think>Yes.") == Message("Yes.", " so.")
    assert answered(continued("<think>Hm.</think>Y"), tokenizer, "es.") == Message("es.")
    assert answered(continued("What is <think>"), tokenizer, "ing?") == Message("", "ing?")
    grammar = continued("I call:", tool_choice="required").grammar
    assert takes(compiler, grammar, F) and not takes(compiler, grammar, f"<think></think>{F}")
    assert takes(compiler, continued("<think>H", tool_choice="required").grammar, f"m.</think>{F}")


def test_reasoning_fields_are_continued_inside_of_reasoning(tokenizer: Tokenizer) -> None:
    jinja = "{% for m in messages %}<think>{{ m.reasoning_content }}</think>{{ m.content }}{% endfor %}"
    messages = [{"role": "assistant", "content": "x", "reasoning_content": "I think"}]
    request = chats(tokenizer, jinja).request(messages, {"continue_final_message": "reasoning_content"})
    assert answered(request, tokenizer, " so.</think>Yes.") == Message("Yes.", " so.")


def test_requests_are_made_in_many_threads_at_once(tokenizer: Tokenizer) -> None:
    made = chats(tokenizer)
    options: list[dict[str, Any]] = [
        {"tools": TOOLS, "tool_choice": "required"},
        {},
        {"tools": STRICT},
        {"enable_thinking": True},
    ]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda given: made.request("Hi", given), options * 8))
    for given, result in zip(options * 8, results, strict=True):
        expected = made.request("Hi", given)
        assert (result.tokens, result.grammar) == (expected.tokens, expected.grammar)
