"""From what users and requests bring to a Grammar."""

import dataclasses
import datetime
import enum
import json
import re
import uuid
from collections.abc import Callable
from typing import Any, Literal, NewType, Optional, TypedDict

import pytest

from bestiary.errors import RequestError
from bestiary.generation.constraints.compiler import ConstraintCompiler
from bestiary.generation.constraints.grammar import (
    Grammar,
    as_grammar,
    choices,
    json_object,
    json_schema,
    lark,
    raw,
    regex,
    tool_call,
)
from bestiary.generation.constraints.schema import prepare
from bestiary.generation.constraints.tools import ToolForm
from bestiary.generation.constraints.type_schema import schema_of

Takes = Callable[[ConstraintCompiler, Grammar, str], bool]
PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


class Colour(enum.Enum):
    RED = "red"
    BLUE = 3


UserId = NewType("UserId", int)


@dataclasses.dataclass
class Address:
    street: str
    number: int | None = None


@dataclasses.dataclass
class Person:
    name: str
    age: int
    address: Address
    tags: list[str] = dataclasses.field(default_factory=list)
    colour: Colour = Colour.RED
    size: Literal["s", "m"] = "s"
    score: "float | None" = None
    friends: "list[Person]" = dataclasses.field(default_factory=list)
    point: tuple[int, str] = (0, "")
    row: tuple[int, ...] = ()
    extra: dict[str, bool] = dataclasses.field(default_factory=dict)
    born: datetime.date | None = None
    key: Optional[uuid.UUID] = None  # noqa: UP045 - the older spelling must do as well
    user: UserId = UserId(0)
    anything: Any = None
    hidden: int = dataclasses.field(default=0, init=False)


def test_a_dataclass_as_schema() -> None:
    schema = schema_of(Person)
    assert schema["$ref"] == "#/$defs/Person"
    person = schema["$defs"]["Person"]
    assert person["required"] == ["name", "age", "address"] and person["additionalProperties"] is False
    assert list(person["properties"]) == [field.name for field in dataclasses.fields(Person) if field.init]
    parts = person["properties"]
    assert parts["address"] == {"$ref": "#/$defs/Address"} and parts["friends"]["items"] == {"$ref": "#/$defs/Person"}
    assert parts["colour"] == {"enum": ["red", 3]} and parts["size"] == {"enum": ["s", "m"]}
    assert parts["score"] == {"anyOf": [{"type": "number"}, {"type": "null"}]}
    assert parts["point"]["prefixItems"] == [{"type": "integer"}, {"type": "string"}]
    assert parts["point"]["items"] is False and parts["row"] == {"type": "array", "items": {"type": "integer"}}
    assert parts["extra"] == {"type": "object", "additionalProperties": {"type": "boolean"}}
    assert parts["born"]["anyOf"][0] == {"type": "string", "format": "date"} and parts["user"] == {"type": "integer"}
    assert schema["$defs"]["Address"]["required"] == ["street"]


def test_a_dataclass_as_grammar(demo: ConstraintCompiler, takes: Takes) -> None:
    grammar = json_schema(Person)
    whole = {
        "name": "Ann",
        "age": 3,
        "address": {"street": "Main", "number": None},
        "tags": ["a"],
        "colour": 3,
        "size": "m",
        "score": 1.5,
        "friends": [{"name": "B", "age": 4, "address": {"street": ""}}],
        "point": [1, "x"],
        "born": "2024-02-29",
        "key": "123e4567-e89b-12d3-a456-426614174000",
    }
    assert takes(demo, grammar, json.dumps(whole)) and takes(demo, grammar, json.dumps(whole, indent=4))
    for change in ({"age": "3"}, {"other": 1}, {"size": "l"}, {"point": [1, "x", 2]}, {"born": "2023-02-29"}):
        assert not takes(demo, grammar, json.dumps(whole | change)), change
    del whole["age"]
    assert not takes(demo, grammar, json.dumps(whole))


class Movie(TypedDict):
    title: str


@dataclasses.dataclass
class Odd:
    members: set[int]


@dataclasses.dataclass
class Unresolved:
    member: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("kind", "place"),
    [(Odd, "Odd.members"), (bytes, "bytes"), (dict[int, str], "dict"), (Movie, "Movie"), (complex, "complex")],
)
def test_types_without_a_schema_are_named(kind: Any, place: str) -> None:
    with pytest.raises(RequestError, match="no JSON schema") as raised:
        json_schema(kind)
    assert str(raised.value.where).startswith(place)


def test_types_that_cannot_be_resolved() -> None:
    with pytest.raises(RequestError, match="Nowhere"):
        json_schema(Unresolved)


def test_pydantic_models_with_a_discriminated_union(demo: ConstraintCompiler, takes: Takes) -> None:
    pydantic = pytest.importorskip("pydantic")
    from typing import Annotated

    cat: Any = pydantic.create_model("Cat", kind=(Literal["cat"], ...), lives=(int, ...))
    dog: Any = pydantic.create_model("Dog", kind=(Literal["dog"], ...), name=(str, ...))
    pet: Any = Annotated[cat | dog, pydantic.Field(discriminator="kind")]
    owner = pydantic.create_model("Owner", pet=(pet, ...), nick=(str | None, None))
    assert "oneOf" in json.dumps(owner.model_json_schema())
    grammar = json_schema(owner)
    assert as_grammar(owner) == grammar
    assert takes(demo, grammar, '{"pet": {"kind": "dog", "name": "Rex"}, "nick": null}')
    assert not takes(demo, grammar, '{"pet": {"kind": "dog", "lives": 3}}')
    assert takes(demo, grammar, '{"pet": {"kind": "cat", "lives": 3}}')


@pytest.mark.parametrize(
    ("value", "same"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, json_object()),
        ({"type": "json_schema", "json_schema": {"name": "p", "strict": True, "schema": PERSON}}, json_schema(PERSON)),
        ({"type": "json_schema", "name": "p", "schema": PERSON, "strict": True}, json_schema(PERSON)),
        ({"type": "json_schema", "value": PERSON}, json_schema(PERSON)),
        ({"type": "json_schema", "value": json.dumps(PERSON)}, json_schema(PERSON)),
        (PERSON, json_schema(PERSON)),
        ({"anyOf": [PERSON, {"type": "null"}]}, json_schema({"anyOf": [PERSON, {"type": "null"}]})),
        ({"properties": {"regex": {}}}, json_schema({"properties": {"regex": {}}})),
        ({"type": "regex", "value": "[ab]+"}, regex("[ab]+")),
        ({"type": "lark", "value": 'start: "a"'}, lark('start: "a"')),
        ({"type": "llguidance", "value": {"grammars": [{"lark_grammar": "start: /a/"}]}}, None),
        ({"guided_json": PERSON}, json_schema(PERSON)),
        ({"guided_regex": "[ab]+", "guided_json": None}, regex("[ab]+")),
        ({"guided_choice": ["a", "b"]}, choices(["a", "b"])),
        ({"choice": ["a", "b"]}, choices(["a", "b"])),
        ({"regex": "[ab]+"}, regex("[ab]+")),
        ({"json_object": True}, json_object()),
        ({"guided_grammar": 'start: "a"'}, lark('start: "a"')),
        (re.compile("[ab]+"), regex("[ab]+")),
        (re.compile("a.", re.IGNORECASE | re.DOTALL), regex("(?is)a.")),
        (["a", "b"], choices(["a", "b"])),
        (list[int], json_schema({"type": "array", "items": {"type": "integer"}})),
        (Literal["a", 1], json_schema({"enum": ["a", 1]})),
        (int | None, json_schema({"anyOf": [{"type": "integer"}, {"type": "null"}]})),
        (bool, json_schema({"type": "boolean"})),
        (choices(["x"]), choices(["x"])),
    ],
)
def test_what_requests_ask_for(value: Any, same: Grammar | None, demo: ConstraintCompiler) -> None:
    grammar = as_grammar(value)
    if isinstance(value, dict) and value.get("type") == "llguidance":
        assert grammar == raw(value["value"])
    else:
        assert grammar == same
    if grammar is not None:
        demo.compile(grammar)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"type": "json_schema"}, "has no schema"),
        ({"type": "regex"}, "has no value"),
        ({"guided_json": {}, "guided_regex": "a"}, "One constraint"),
        ({"guided_regexp": "a", "guided_regex": "b"}, "One constraint"),
        ("json", "no grammar"),
        ({"guided_jsn": {}}, "no grammar"),
        ({"guided_choice": "ab"}, "list of texts"),
    ],
)
def test_what_nobody_can_mean(value: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        as_grammar(value)


@pytest.mark.parametrize(
    ("schema", "keyword", "place"),
    [
        ({"not": {}}, "not", "#/not"),
        (
            {"properties": {"a/b": {"items": {"uniqueItems": True}}}},
            "uniqueItems",
            "#/properties/a~1b/items/uniqueItems",
        ),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"if": {}, "then": False}}}, "if", "#/$defs/a/if"),
        ({"anyOf": [{}, {"format": "colour"}]}, "colour", "#/anyOf/1/format"),
        ({"type": "array", "contains": {}}, "contains", "#/contains"),
        ({"allOf": [{"propertyNames": {"maxLength": 3}}]}, "propertyNames", "#/allOf/0/propertyNames"),
        ({"nullable": True}, "nullable", "#/nullable"),
        ({"maxlength": 3}, "maxlength", "#/maxlength"),
        ({"requierd": []}, "requierd", "#/requierd"),
        ({"items": {"type": "strin"}}, "strin", "#/items/type"),
        ({"items": {"pattern": "(?=a)"}, "pattern": "a"}, "pattern", "#/items/pattern"),
        ({"items": {"oneOf": [{"minimum": 1}, {"maximum": 2}]}}, "oneOf", "#/items/oneOf"),
        ({"items": {"minProperties": 2, "properties": {"a": {}, "b": {}}}}, "minProperties", "#/items/minProperties"),
        ({"items": [{"minItems": -1}]}, "-1", "#/items/0/minItems"),
    ],
)
def test_a_keyword_that_cannot_be_enforced_is_named_with_its_place(
    schema: Any, keyword: str, place: str, demo: ConstraintCompiler
) -> None:
    with pytest.raises(RequestError) as raised:
        demo.compile(json_schema(schema))
    assert keyword in raised.value.what and raised.value.where == place


def test_keywords_that_ask_for_nothing_are_left_out() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "T",
        "deprecated": True,
        "x-order": 1,
        "uniqueItems": False,
        "then": {"type": "string"},
        "minContains": 3,
        "dependencies": {},
        "not": False,
        "unevaluatedProperties": True,
        "vendor": {"anything": 1},
        "$defs": {"unused": {"not": {}}},
        "type": "integer",
        "maximum": 2.0,
        "minItems": 2.0,
    }
    assert prepare(schema) == {"type": "integer", "maximum": 2.0, "minItems": 2}


def test_references_by_pointer_anchor_and_own_name() -> None:
    schema = {
        "$id": "https://example.com/own",
        "properties": {
            "a": {"$ref": "#/$defs/x~1y%25"},
            "b": {"$ref": "#there"},
            "c": {"$ref": "https://example.com/own#/$defs/z"},
            "d": {"$ref": "#"},
            "e": {"$ref": "#/$defs/z"},
        },
        "$defs": {"x/y%": {"type": "null"}, "w": {"$anchor": "there", "type": "boolean"}, "z": {"const": 1}},
    }
    made = prepare(schema)
    meant = {name: made["$defs"].get(part["$ref"].rpartition("/")[2]) for name, part in made["properties"].items()}
    assert meant == {"a": {"type": "null"}, "b": {"type": "boolean"}, "c": {"const": 1}, "d": None, "e": {"const": 1}}
    assert made["properties"]["d"] == {"$ref": "#"}


@pytest.mark.parametrize(
    ("alternatives", "apart"),
    [
        ([{"type": "string"}, {"type": "integer"}], True),
        ([{"type": "number"}, {"type": "integer"}], False),
        ([{"const": 1}, {"const": 1.0}], False),
        ([{"const": 1}, {"const": True}], True),
        ([{"enum": ["a", "b"]}, {"enum": ["b", "c"]}], False),
        ([{"enum": ["a", "b"]}, {"const": "c"}], True),
        ([{"type": "array"}, {"items": {}}], False),
        ([{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], True),
        ([{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/open"}], False),
        ([{"$ref": "#/$defs/a"}, {"type": "object"}], False),
        ([{"const": {"a": 1}}, {"const": {"a": 2}}], False),  # not proved here, which is the safe answer
    ],
)
def test_one_of_becomes_any_of_only_where_no_value_is_shared(alternatives: list[Any], apart: bool) -> None:
    tagged = [
        {"type": "object", "properties": {"kind": {"const": name}}, "required": ["kind"] * need}
        for name, need in (("a", 1), ("b", 1), ("b", 0))
    ]
    definitions = {"a": tagged[0], "b": tagged[1], "open": {**tagged[2], "required": [], "properties": {}}}
    made = prepare({"oneOf": alternatives, "$defs": definitions})
    assert ("anyOf" in made) == apart and ("oneOf" in made) != apart
    both = prepare({"oneOf": alternatives, "anyOf": [{"title": "any"}], "$defs": definitions})
    assert both["anyOf"] == [{}] and ("allOf" in both) == apart


def test_numbers_of_openapi_have_their_bounds(demo: ConstraintCompiler, takes: Takes) -> None:
    grammar = json_schema({"type": "integer", "format": "int32", "minimum": -5})
    for text, valid in (("2147483647", True), ("2147483648", False), ("-5", True), ("-6", False)):
        assert takes(demo, grammar, text) == valid


def test_whitespace(demo: ConstraintCompiler, takes: Takes) -> None:
    flexible, compact = json_schema(PERSON), json_schema(PERSON, whitespace="compact")
    value = {"name": "é \n", "x": [1, {"y": None}]}
    for text in (json.dumps(value), json.dumps(value, indent=8), json.dumps(value, ensure_ascii=False)):
        plain = "\\u00e9" not in text  # only characters that JSON must escape come escaped
        assert takes(demo, flexible, text) == plain and not takes(demo, compact, text)
    tight = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    assert takes(demo, flexible, tight) and takes(demo, compact, tight)
    assert not takes(demo, flexible, " " + tight) and not takes(demo, flexible, tight + "\n")
    assert takes(demo, flexible, '{"name":' + " " * 64 + '"a"}')
    assert not takes(demo, flexible, '{"name":' + " " * 65 + '"a"}')
    with pytest.raises(RequestError, match="flexible"):
        json_schema(PERSON, whitespace="none")


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        (r"^a$", ["a"]),
        (r"a/b\/c", ["a/b/c"]),
        ("a\nb\t", ["a\nb\t"]),
        (r"[/\\]+\.", ["/\\.", "//."]),
        (r"(?i)yes", ["YES", "yes"]),
        (r".*", ["", "anything but a newline"]),
        (r"", [""]),
        (r"\"quoted\"", ['"quoted"']),
    ],
)
def test_regular_expressions_match_whole_texts(
    pattern: str, texts: list[str], demo: ConstraintCompiler, takes: Takes
) -> None:
    for text in (*texts, "x\ny", "aa", "b", "YES!"):
        assert takes(demo, regex(pattern), text) == (re.fullmatch(pattern, text) is not None), text


def test_calls_of_tools(demo: ConstraintCompiler, takes: Takes) -> None:
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    closed = {**city, "additionalProperties": False}
    tools = [
        {"type": "function", "function": {"name": "weather", "parameters": closed, "strict": True}},
        {"name": "clock", "input_schema": closed},
        {"function": {"name": "stop"}},
    ]
    weather = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    stop = '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>'
    one, two = tool_call(tools), tool_call(tools, most=2)
    for text, single, double in (
        (weather, True, True),
        (weather.replace("weather", "clock"), True, True),
        (stop, True, True),
        (weather.replace("city", "town"), False, False),
        (weather.replace("weather", "stop"), False, False),
        (weather.replace("weather", "other"), False, False),
        (f"{weather}\n{stop}", False, True),
        (f"{weather}\n{stop}\n{stop}", False, False),
        (weather[:-1], False, False),
    ):
        assert takes(demo, one, text) == single and takes(demo, two, text) == double, text
    form = ToolForm("<function=", ">", "</function>")
    assert takes(demo, tool_call(tools, form=form), '<function=weather>{"city": "Oslo"}</function>')


def test_special_tokens_in_the_form_of_a_call_come_as_tokens(demo: ConstraintCompiler) -> None:
    tokenizer = demo.vocabulary.tokenizer
    mark = next(text for text in tokenizer.special_texts() if tokenizer.id(text) not in demo.vocabulary.end_tokens)
    form = ToolForm(f"{mark}", "[", f"]{mark}")
    spelled, marked = (
        tool_call([{"name": "f"}], form=form),
        tool_call([{"name": "f"}], form=form, special_tokens=tokenizer.special_texts()),
    )
    token = tokenizer.id(mark)
    assert token is not None
    state = demo.compile(marked)
    assert state.forced()[0] == token and state.accepts([token]) == 1
    assert demo.compile(spelled).accepts([token]) == 0
