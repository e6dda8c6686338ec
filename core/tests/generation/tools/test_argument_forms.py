"""Arguments that are no JSON text: what of a schema is enforced in elements and in Gemma's notation, or refused."""

from collections.abc import Callable
from typing import Any

import pytest

from bestiary.errors import RequestError
from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.tools.answer_grammar import Wanted, answer_grammar
from bestiary.generation.tools.choose import form_of, parser_of, tool_format
from bestiary.generation.tools.events import assemble
from bestiary.generation.tools.tool_choice import validate_tools

Vocabulary = Callable[..., ConstraintCompiler]
QUOTE = '<|"|>'
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 3},
        "short": {"type": "string", "minLength": 1, "maxLength": 5},
        "unit": {"enum": ["C", "°F"]},
        "mixed": {"enum": ["x", 2, None]},
        "maybe": {"type": ["string", "null"]},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
        "place": {
            "type": "object",
            "properties": {"x": {"type": "number"}, "y": {"type": "boolean"}},
            "required": ["y"],
        },
        "tree": {"$ref": "#/$defs/tree"},
        "any": {},
        "never": False,
    },
    "required": ["count"],
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {"left": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}},
            "required": ["left"],
            "additionalProperties": False,
        }
    },
}
STRICT = validate_tools([{"name": "f", "parameters": SCHEMA, "strict": True}])
ELEMENTS = [
    ({"count": "3"}, {"count": 3}),
    ({"count": "2"}, None),
    ({"count": "x"}, None),
    ({"short": "abc"}, None),
    ({"count": "3", "short": "<b>\n"}, {"count": 3, "short": "<b>\n"}),
    ({"count": "3", "short": ""}, None),
    ({"count": "3", "short": "abcdef"}, None),
    ({"count": "3", "unit": "°F"}, {"count": 3, "unit": "°F"}),
    ({"count": "3", "unit": "K"}, None),
    ({"count": "3", "mixed": '"x"'}, {"count": 3, "mixed": "x"}),
    ({"count": "3", "mixed": "null"}, {"count": 3, "mixed": None}),
    ({"count": "3", "mixed": "x"}, None),
    ({"count": "3", "maybe": "null"}, {"count": 3, "maybe": None}),
    ({"count": "3", "maybe": "12 miles"}, {"count": 3, "maybe": "12 miles"}),
    ({"count": "3", "either": "12"}, {"count": 3, "either": 12}),
    ({"count": "3", "either": "1.5"}, {"count": 3, "either": "1.5"}),
    ({"count": "3", "tags": '["a", "b"]'}, {"count": 3, "tags": ["a", "b"]}),
    ({"count": "3", "tags": "[]"}, None),
    ({"count": "3", "place": '{"x": 1.5, "y": true}'}, {"count": 3, "place": {"x": 1.5, "y": True}}),
    ({"count": "3", "place": '{"x": 1.5}'}, None),
    ({"count": "3", "tree": '{"left": {"left": null}}'}, {"count": 3, "tree": {"left": {"left": None}}}),
    ({"count": "3", "tree": '{"left": 1}'}, None),
    ({"count": "3", "any": '[1, {"k": "v"}]'}, {"count": 3, "any": [1, {"k": "v"}]}),
    ({"count": "3", "never": "1"}, None),
    ({"count": "3", "other": "1"}, None),
]
"""What stands between the tags, and what is read; None where the grammar does not take it."""
NOTATION = [
    ("count:3", {"count": 3}),
    ("count:2", None),
    ("", None),
    (f"count:3,short:{QUOTE}a}},:{QUOTE}", {"count": 3, "short": "a},:"}),
    (f"count:3,short:{QUOTE}{QUOTE}", None),
    (f"count:3,short:{QUOTE}abcdef{QUOTE}", None),
    (f"count:3,unit:{QUOTE}°F{QUOTE}", {"count": 3, "unit": "°F"}),
    (f"count:3,mixed:{QUOTE}x{QUOTE}", {"count": 3, "mixed": "x"}),
    ("count:3,mixed:2", {"count": 3, "mixed": 2}),
    ("count:3,mixed:3", None),
    ("count:3,maybe:null", {"count": 3, "maybe": None}),
    (f"count:3,either:{QUOTE}1{QUOTE}", {"count": 3, "either": "1"}),
    ("count:3,either:1.5", None),
    (f"count:3,tags:[{QUOTE}a{QUOTE},{QUOTE}b{QUOTE}]", {"count": 3, "tags": ["a", "b"]}),
    ("count:3,tags:[]", None),
    (f"count:3,tags:[{QUOTE}{QUOTE},{QUOTE}{QUOTE},{QUOTE}{QUOTE}]", None),
    ("count:3,place:{x:-1.5e3,y:true}", {"count": 3, "place": {"x": -1500.0, "y": True}}),
    ("count:3,place:{y:false}", {"count": 3, "place": {"y": False}}),
    ("count:3,place:{x:1}", None),
    ("count:3,tree:{left:{left:null}}", {"count": 3, "tree": {"left": {"left": None}}}),
    ("count:3,tree:{}", None),
    (f"count:3,any:[1,{{k:{QUOTE}v{QUOTE},l:[]}},null]", {"count": 3, "any": [1, {"k": "v", "l": []}, None]}),
    ("count:3,never:1", None),
    ("count:3,other:1", None),
]


def made(compiler: ConstraintCompiler, name: str, tools: list[dict[str, Any]]) -> Any:
    tokenizer = compiler.vocabulary.tokenizer
    special = {text: tokenizer.id(text) or 0 for text in tokenizer.special_texts()}
    return answer_grammar(form_of(tool_format(name)), Wanted(tools, required=True), special)


def check(compiler: ConstraintCompiler, name: str, text: str, arguments: dict[str, Any] | None) -> None:
    state = compiler.compile(made(compiler, name, STRICT))
    tokens = compiler.vocabulary.tokenizer.encode_after(text)
    taken = state.accepts(tokens) == len(tokens)
    for token in tokens if taken else ():
        state.advance(token)
    assert (taken and state.can_end) == (arguments is not None), text
    if arguments is not None:
        parser = parser_of(tool_format(name), STRICT)
        [call] = assemble([*parser.push(text), *parser.finish()]).tool_calls
        assert call.parsed == arguments


@pytest.mark.parametrize("special", [(), ("<tool_call>", "</parameter>", "<arg_key>", "</arg_value>")])
@pytest.mark.parametrize(("values", "arguments"), ELEMENTS)
def test_elements(
    values: dict[str, str], arguments: dict[str, Any] | None, special: tuple[str, ...], vocabulary: Vocabulary
) -> None:
    compiler = vocabulary(*special)
    parameters = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    check(compiler, "qwen_coder", f"<tool_call>\n<function=f>\n{parameters}</function>\n</tool_call>", arguments)
    pairs = "".join(f"<arg_key>{key}</arg_key><arg_value>{value}</arg_value>" for key, value in values.items())
    check(compiler, "glm_flat", f"<tool_call>f{pairs}</tool_call>", arguments)


@pytest.mark.parametrize("special", [(), ("<|tool_call>", "<tool_call|>", QUOTE, "<escape>")])
@pytest.mark.parametrize(("text", "arguments"), NOTATION)
def test_notation(
    text: str, arguments: dict[str, Any] | None, special: tuple[str, ...], vocabulary: Vocabulary
) -> None:
    compiler = vocabulary(*special)
    check(compiler, "gemma4", f"<|tool_call>call:f{{{text}}}<tool_call|>", arguments)
    text = text.replace(QUOTE, "<escape>")
    check(compiler, "function_gemma", f"<start_function_call>call:f{{{text}}}<end_function_call>", arguments)


def test_values_cannot_have_the_end_of_their_element_in_them(vocabulary: Vocabulary) -> None:
    tools = validate_tools([{"name": "f", "parameters": {"properties": {"s": {"type": "string"}}}, "strict": True}])
    for special in ((), ("</parameter>",)):
        compiler = vocabulary(*special)
        state = compiler.compile(made(compiler, "qwen_coder", tools))
        head = "<tool_call>\n<function=f>\n<parameter=s>\n"
        tokens = compiler.vocabulary.tokenizer.encode_after(f"{head}a </parameter> b")
        assert 0 < state.accepts(tokens) < len(tokens)


@pytest.mark.parametrize("name", ["qwen_coder", "glm", "gemma4", "function_gemma"])
@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"properties": {"s": {"type": "string", "pattern": "^a"}}}, "#/properties/s/pattern"),
        ({"properties": {"s": {"type": "string", "format": "uuid"}}}, "#/properties/s/format"),
        ({"minProperties": 1}, "#/minProperties"),
        ({"patternProperties": {"a": {}}}, "#/patternProperties"),
        ({"properties": {"a<b": {}}}, "#/properties/a<b"),
        ({"properties": {"s": {"enum": ["</parameter>", "</arg_value>", QUOTE, "<escape>"]}}}, "#/properties/s"),
        ({"properties": {"s": False}, "required": ["s"]}, "#/required"),
        ({"allOf": [{"required": ["a"]}]}, "#/allOf"),
    ],
)
def test_what_is_refused(name: str, schema: dict[str, Any], where: str, vocabulary: Vocabulary) -> None:
    with pytest.raises(RequestError) as raised:
        made(vocabulary(), name, validate_tools([{"name": "f", "parameters": schema, "strict": True}]))
    assert raised.value.where == f"tools/0 (f): {where}"
    loose = validate_tools([{"name": "f", "parameters": {"type": "object", **schema}}])
    if where not in ("#/properties/a<b", "#/required"):
        vocabulary().compile(made(vocabulary(), name, loose))


def test_a_grammar_has_a_bounded_number_of_rules(vocabulary: Vocabulary) -> None:
    """Long chains of rules take stack where they are compiled."""
    properties = {f"p{place}": {"type": "string", "maxLength": 9} for place in range(900)}
    tools = validate_tools([{"name": "f", "parameters": {"properties": properties}, "strict": True}])
    with pytest.raises(RequestError, match="more than 2000 rules"):
        made(vocabulary(), "gemma4", tools)
    few = {name: properties[name] for name in list(properties)[:300]}
    tools = validate_tools([{"name": "f", "parameters": {"properties": few}, "strict": True}])
    vocabulary().compile(made(vocabulary(), "gemma4", tools))


def test_required_names_that_no_property_lists_take_anything(vocabulary: Vocabulary) -> None:
    tools = validate_tools([{"name": "f", "parameters": {"required": ["a"]}, "strict": True}])
    for name, text in (
        ("qwen_coder", "<tool_call>\n<function=f>\n<parameter=a>\n[1]\n</parameter>\n</function>\n</tool_call>"),
        ("gemma4", "<|tool_call>call:f{a:[1]}<tool_call|>"),
    ):
        state = vocabulary().compile(made(vocabulary(), name, tools))
        tokens = vocabulary().vocabulary.tokenizer.encode_after(text)
        assert state.accepts(tokens) == len(tokens)
