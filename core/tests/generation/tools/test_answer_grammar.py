"""Grammars of answers: what each format's own texts, written by hand, may and may not be; and that they are read."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bestiary.errors import RequestError
from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.constraints.grammar import Grammar, choices, json_schema, raw
from bestiary.generation.tools.answer_grammar import Thinking, Wanted, answer_grammar, framed
from bestiary.generation.tools.choose import form_of, parser_of, tool_format
from bestiary.generation.tools.events import assemble
from bestiary.generation.tools.tool_choice import validate_tools
from bestiary.records import ToolFormat
from bestiary.registry import default_registry

Vocabulary = Callable[..., ConstraintCompiler]
Calls = Sequence[tuple[str, dict[str, Any]]]

PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 3}, "s": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOLS = validate_tools(
    [{"name": "f", "parameters": PARAMETERS, "strict": True}, {"name": "fg"}, {"name": "h", "parameters": PARAMETERS}]
)


def objects(key: str, before: str, after: str, between: str, opens: str = "", closes: str = "") -> Callable[..., str]:
    def write(calls: Calls) -> str:
        made = [f'{before}{{"name": "{name}", "{key}": {json.dumps(given)}}}{after}' for name, given in calls]
        return opens + between.join(made) + closes

    return write


def joined(each: Callable[[str, dict[str, Any]], str], between: str = "") -> Callable[[Calls], str]:
    return lambda calls: between.join(each(name, given) for name, given in calls)


def elements(given: dict[str, Any], key: str) -> str:
    return "".join(key.format(name, value) for name, value in given.items())


def gemma(given: dict[str, Any], quote: str) -> str:
    values = (
        f"{key}:{quote}{value}{quote}" if isinstance(value, str) else f"{key}:{value}" for key, value in given.items()
    )
    return "{" + ",".join(values) + "}"


def deepseek(each: Callable[[str, dict[str, Any]], str], between: str) -> Callable[[Calls], str]:
    return lambda calls: "<｜tool▁calls▁begin｜>" + joined(each, between)(calls) + "<｜tool▁calls▁end｜>"


_QUOTE, _MORE = '<|"|>', "<|end|><|start|>assistant"
_CALL, _SEPARATOR, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_PARAMETER, _TURN = "<parameter={}>\n{}\n</parameter>\n", "<|channel|>commentary to=functions."
WRITTEN: dict[str, Callable[[Calls], str]] = {
    "deepseek": deepseek(
        lambda name, given: f"{_CALL}function{_SEPARATOR}{name}\n```json\n{json.dumps(given)}\n```{_CALL_END}", "\n"
    ),
    "deepseek_bare": deepseek(lambda name, given: f"{_CALL}{name}{_SEPARATOR}{json.dumps(given)}{_CALL_END}", ""),
    "function_gemma": joined(
        lambda name, given: f"<start_function_call>call:{name}{gemma(given, '<escape>')}<end_function_call>"
    ),
    "gemma3": objects("parameters", "", "", ", ", "[", "]"),
    "gemma4": joined(lambda name, given: f"<|tool_call>call:{name}{gemma(given, _QUOTE)}<tool_call|>"),
    "generic": objects("arguments", "", "", ", ", "[", "]"),
    "glm": joined(
        lambda name, given: (
            f"<tool_call>{name}\n"
            + elements(given, "<arg_key>{}</arg_key>\n<arg_value>{}</arg_value>\n")
            + "</tool_call>"
        ),
        "\n",
    ),
    "glm_flat": joined(
        lambda name, given: (
            f"<tool_call>{name}" + elements(given, "<arg_key>{}</arg_key><arg_value>{}</arg_value>") + "</tool_call>"
        )
    ),
    "harmony": joined(lambda name, given: f"{_TURN}{name} <|constrain|>json<|message|>{json.dumps(given)}"),
    "hermes": objects("arguments", "<tool_call>\n", "\n</tool_call>", "\n"),
    "llama": objects("parameters", "", "", "; "),
    "llama_tags": joined(lambda name, given: f"<function={name}>{json.dumps(given)}</function>"),
    "mistral": objects("arguments", "", "", ", ", "[TOOL_CALLS][", "]"),
    "mistral_args": joined(lambda name, given: f"[TOOL_CALLS]{name}[ARGS]{json.dumps(given)}"),
    "mistral_ids": joined(lambda name, given: f"[TOOL_CALLS]{name}[CALL_ID]abcdef123[ARGS]{json.dumps(given)}"),
    "qwen_coder": joined(
        lambda name, given: (
            f"<tool_call>\n<function={name}>\n" + elements(given, _PARAMETER) + "</function>\n</tool_call>"
        ),
        "\n",
    ),
}
SPECIAL = {
    "deepseek": ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", _CALL, _SEPARATOR, _CALL_END),
    "function_gemma": ("<start_function_call>", "<end_function_call>", "<escape>"),
    "gemma4": ("<|tool_call>", "<tool_call|>", _QUOTE, "<|channel>", "<channel|>"),
    "glm": ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    "harmony": ("<|channel|>", "<|message|>", "<|constrain|>", "<|start|>", "<|end|>"),
    "hermes": ("<tool_call>", "</tool_call>"),
    "llama": ("<|python_tag|>",),
    "mistral": ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    "qwen_coder": ("<tool_call>", "</tool_call>", "<parameter=", "</parameter>"),
}
"""Texts that are special tokens in some vocabulary of a format; a name stands for all that begin with it."""
UNANNOUNCED = ("gemma3", "generic", "llama")
ONE = [("f", {"a": 3, "s": "Is <b> it?"})]
TWO = [("f", {"a": 41}), ("fg", {})]
NAMES = sorted(WRITTEN)
THOUGHT = Thinking("<think>", "</think>", begun=False)
BEGUN = Thinking("<think>", "</think>", begun=True)


def markers(name: str) -> tuple[str, ...]:
    return next((texts for start, texts in SPECIAL.items() if name.startswith(start)), ())


def grammar(compiler: ConstraintCompiler, name: str, **wanted: Any) -> Grammar:
    tokenizer = compiler.vocabulary.tokenizer
    special = {text: tokenizer.id(text) or 0 for text in tokenizer.special_texts()}
    return answer_grammar(form_of(tool_format(name)), Wanted(**{"tools": TOOLS, **wanted}), special)


def takes(compiler: ConstraintCompiler, grammar: Grammar, text: str) -> bool:
    """Whether the text is of the grammar, token by token, each being in the mask before it."""
    state = compiler.compile(grammar)
    for token in compiler.vocabulary.tokenizer.encode_after(text):
        if not state.allowed()[token]:
            return False
        state.advance(token)
    return state.can_end


def read(name: str, text: str) -> tuple[list[tuple[str, Any]], str]:
    parser = parser_of(tool_format(name), TOOLS)
    message = assemble([*parser.push(text), *parser.finish()])
    return [(call.name, call.parsed) for call in message.tool_calls], message.content


@pytest.fixture(params=["plain", "special"])
def compiler(request: pytest.FixtureRequest, name: str, vocabulary: Vocabulary) -> ConstraintCompiler:
    return vocabulary(*(markers(name) if request.param == "special" else ()))


def test_every_format_is_here() -> None:
    assert set(WRITTEN) == {record.name for record, _ in default_registry().records(ToolFormat) if record.form}


@pytest.mark.parametrize("name", NAMES)
def test_required_calls(name: str, compiler: ConstraintCompiler) -> None:
    write = WRITTEN[name]
    several, single = grammar(compiler, name, required=True), grammar(compiler, name, required=True, parallel=False)
    good: list[Calls] = [ONE, [("fg", {})], [("h", {"a": 3})]]
    for calls in good:
        alone = write(calls)[1:-1] if name in ("gemma3", "generic") else write(calls)
        assert takes(compiler, several, alone) and takes(compiler, single, alone), alone
        assert read(name, alone) == (calls, "")
    assert takes(compiler, several, write(TWO)) == (name != "harmony")
    assert not takes(compiler, single, write(TWO))
    if name != "harmony":
        assert read(name, write(TWO)) == (TWO, "")
    for text in (
        write([("f", {})]),
        write([("f", {"a": 2})]),
        write([("f", {"a": 3, "b": 1})]),
        write([("fg", {}), ("f", {"a": 2})]),
        write([("other", {})]),
        write(ONE)[:-1] if name != "harmony" else "",
        "It is 3.",
        f"I call. {write(ONE)}",
        f"{write(ONE)} Done.",
        "",
    ):
        assert not takes(compiler, several, text), text


@pytest.mark.parametrize("name", NAMES)
def test_text_in_which_calls_must_be_right(name: str, compiler: ConstraintCompiler) -> None:
    write = WRITTEN[name]
    several, single = grammar(compiler, name, required=False), grammar(compiler, name, required=False, parallel=False)
    text = "<|channel|>final<|message|>It is < 3." if name == "harmony" else "It is < 3.\n{x}"
    assert takes(compiler, several, text) and takes(compiler, several, write(ONE))
    if name not in UNANNOUNCED:
        before = f"<|channel|>commentary<|message|>I call.{_MORE}" if name == "harmony" else "I call.\n"
        assert takes(compiler, several, before + write(ONE)) and takes(compiler, single, before + write(ONE))
        assert read(name, before + write(ONE)) == (ONE, "I call." if name in ("harmony", "hermes") else "I call.\n")
        assert not takes(compiler, several, before + write([("f", {"a": 2})]))
        assert not takes(compiler, several, before + write([("other", {})]))
    assert takes(compiler, several, write(TWO)) == (name != "harmony")
    assert not takes(compiler, single, write(TWO))
    assert not takes(compiler, several, write([("f", {"a": "x"})]))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("harmony", "gemma4")])
@pytest.mark.parametrize("spelled", [True, False], ids=["spelled", "tokens"])
def test_reasoning_comes_before_calls(name: str, spelled: bool, vocabulary: Vocabulary) -> None:
    compiler = vocabulary() if spelled else vocabulary(*markers(name), "<think>", "</think>")
    call = WRITTEN[name](ONE if name not in ("gemma3", "generic") else TWO)
    for required in (True, False):
        may = grammar(compiler, name, required=required, thinking=THOUGHT)
        must = grammar(compiler, name, required=required, thinking=BEGUN)
        none = grammar(compiler, name, required=required)
        for thought in ("<think>Hm, {3}.</think>\n\n", "<think>\n\n</think>"):
            assert takes(compiler, may, thought + call)
            assert takes(compiler, must, thought.partition("<think>")[2] + call)
            assert not takes(compiler, may, thought.partition("</think>")[0])
            assert takes(compiler, may, f"{thought}So be it.") != required
        assert takes(compiler, may, call) and takes(compiler, none, call)
        assert takes(compiler, may, f"\n<think></think>{call}") != required, "text may begin with a line break"
        assert not takes(compiler, must, call), "it is still reasoning"
        assert not takes(compiler, none, f"<think>Hm.</think>{call}") or (spelled and not required)


def test_gemma4_reasons_in_a_channel(vocabulary: Vocabulary) -> None:
    for compiler in (vocabulary(), vocabulary(*SPECIAL["gemma4"])):
        may = grammar(compiler, "gemma4", required=True, thinking=Thinking("<|channel>thought\n", "<channel|>", False))
        call = WRITTEN["gemma4"](ONE)
        assert takes(compiler, may, f"<|channel>thought\nHm.\n<channel|>{call}") and takes(compiler, may, call)
        assert not takes(compiler, may, f"<|channel>thought\nHm. {call}")


def test_harmony_reasons_in_messages(vocabulary: Vocabulary) -> None:
    call = WRITTEN["harmony"](ONE)
    other = ' to=functions.f<|channel|>commentary json<|message|>{"a": 3}'
    for compiler in (vocabulary(), vocabulary(*SPECIAL["harmony"])):
        required, free = grammar(compiler, "harmony", required=True), grammar(compiler, "harmony", required=False)
        thought = f"<|channel|>analysis<|message|>Hm.{_MORE}"
        for text in (thought + call, other, call.replace(" <|constrain|>json", "")):
            assert takes(compiler, required, text) and takes(compiler, free, text), text
        final = f"{thought}<|channel|>final<|message|>Yes."
        assert takes(compiler, free, final) and not takes(compiler, required, final)
        assert not takes(compiler, free, "<|channel|>analysis<|message|>Hm.<|channel|>")


def test_markers_in_plain_text_announce_calls_where_they_are_tokens_too(vocabulary: Vocabulary) -> None:
    """The parser takes either, so neither may get past the grammar."""
    compiler = vocabulary(*SPECIAL["hermes"])
    state = compiler.compile(grammar(compiler, "hermes", required=False))
    spelled = compiler.vocabulary.tokenizer.encode_after("I use <tool_call>", allow_special=False)
    assert not any(map(compiler.vocabulary.tokenizer.is_special, spelled))
    assert state.accepts(spelled) == len(spelled) - 1


def test_lists_and_ids_of_mistral(vocabulary: Vocabulary) -> None:
    compiler = vocabulary(*SPECIAL["mistral"])
    made = grammar(compiler, "mistral", required=True)
    assert takes(compiler, made, '[TOOL_CALLS] [{"name": "fg", "arguments": {}, "id": "abcdef123"}]')
    assert not takes(compiler, made, '[TOOL_CALLS][{"name": "fg", "arguments": {}, "id": "abc"}]')
    made = grammar(compiler, "mistral_ids", required=True)
    assert takes(compiler, made, "[TOOL_CALLS]fg[ARGS]{}")


def test_a_schema_that_cannot_be_enforced_is_an_error_for_strict_tools_alone(vocabulary: Vocabulary) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}, "b": {}}, "required": ["a"]}
    for name in NAMES:
        compiler = vocabulary()
        loose = validate_tools([{"name": "f", "parameters": schema}])
        values: dict[str, Any] = {"a": 5} if "gemma" in name else {"a": [1, 1]}
        assert takes(compiler, grammar(compiler, name, required=True, tools=loose), WRITTEN[name]([("f", values)]))
        strict = validate_tools([{"name": "f", "parameters": schema, "strict": True}])
        with pytest.raises(RequestError, match='"uniqueItems"') as raised:
            grammar(compiler, name, required=True, tools=strict)
        assert raised.value.where == "tools/0 (f): #/properties/a/uniqueItems"


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
COMPOSED = raw({"grammars": [{"lark_grammar": 'start: "<" @i'}, {"name": "i", "json_schema": SCHEMA}]})


@pytest.mark.parametrize(
    ("inner", "right", "wrong"),
    [
        (json_schema(SCHEMA), '{"a": 1}', '{"a": "1"}'),
        (choices(["yes", "no"]), "yes", "maybe"),
        (COMPOSED, '<{"a": 1}', "<"),
    ],
    ids=["schema", "choices", "composed"],
)
def test_an_answer_with_a_grammar_comes_behind_reasoning(
    inner: Grammar, right: str, wrong: str, vocabulary: Vocabulary
) -> None:
    compiler = vocabulary()
    assert framed(inner, None, None, {}) == framed(inner, None, THOUGHT, {}) == inner
    behind = framed(inner, None, BEGUN, {})
    assert behind.kind == inner.kind
    assert takes(compiler, behind, f"Hm, {right}.</think>\n{right}")
    assert not takes(compiler, behind, f"Hm.</think>{wrong}") and not takes(compiler, behind, right)
    in_harmony = framed(inner, form_of(tool_format("harmony")), None, {})
    said = f"<|channel|>analysis<|message|>Hm.{_MORE}"
    assert takes(compiler, in_harmony, f"{said}<|channel|>final<|message|>{right}")
    assert not takes(compiler, in_harmony, f"<|channel|>final<|message|>{wrong}")
    assert not takes(compiler, in_harmony, right)
