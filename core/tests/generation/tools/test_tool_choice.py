"""Tools and tool_choice of a request: what is taken, and what is refused with an error of ours."""

from typing import Any

import pytest

from bestiary.errors import OptionError, RequestError
from bestiary.generation.tools.tool_choice import DESCRIPTION_LENGTH, SCHEMA_SIZE, TOOLS, ToolChoice, validate_tools


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


OFFERED = validate_tools([tool("a"), tool("b"), tool("c")])


def allowed(*names: str, **more: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [tool(name) for name in names], **more}}


@pytest.mark.parametrize(
    ("choice", "result"),
    [
        (None, ToolChoice("auto", ("a", "b", "c"))),
        ("auto", ToolChoice("auto", ("a", "b", "c"))),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required", ("a", "b", "c"))),
        ({"type": "function", "function": {"name": "b"}}, ToolChoice("required", ("b",))),
        ({"type": "function", "name": "b"}, ToolChoice("required", ("b",))),
        (allowed("c", "a", "c"), ToolChoice("auto", ("a", "c"))),
        (allowed("b", mode="required"), ToolChoice("required", ("b",))),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "a"}]},
            ToolChoice("auto", ("a",)),
        ),
    ],
)
def test_choice(choice: Any, result: ToolChoice) -> None:
    assert ToolChoice.of(choice, OFFERED) == result
    assert [tool["function"]["name"] for tool in result.offer(OFFERED)] == list(result.names)


def test_forced() -> None:
    assert ToolChoice("required", ("a",)).forced == "a"
    assert ToolChoice("required", ("a", "b")).forced is None
    assert ToolChoice("auto", ("a",)).forced is None


def test_without_tools() -> None:
    nothing: tuple[list[Any] | None, ...] = (None, [])
    for tools in nothing:
        assert ToolChoice.of(None, tools) == ToolChoice.of("auto", tools) == ToolChoice("none")
        with pytest.raises(RequestError, match="no tools are offered"):
            ToolChoice.of("required", tools)


@pytest.mark.parametrize(
    "choice",
    [
        *("automatic", "", 3, [], {}, True, {"type": "any"}, {"type": "allowed_tools", "allowed_tools": 3}),
        *(allowed(), allowed("a", mode="none"), allowed("a", tools=3), allowed("a", tools=["a"])),
    ],
)
def test_unknown_choices(choice: Any) -> None:
    with pytest.raises(OptionError):
        ToolChoice.of(choice, OFFERED)


def test_nearest_names() -> None:
    with pytest.raises(OptionError) as option:
        ToolChoice.of("requird", OFFERED)
    assert option.value.fix == "use 'required'"
    offered = validate_tools([tool("get_weather")])
    with pytest.raises(RequestError, match="'get_wether'") as request:
        ToolChoice.of({"type": "function", "function": {"name": "get_wether"}}, offered)
    assert request.value.fix == "use 'get_weather'"


@pytest.mark.parametrize("name", ["d", None, 3, ["a"], ""])
def test_tools_that_were_not_offered(name: Any) -> None:
    for choice in ({"type": "function", "function": {"name": name}}, allowed("a", name)):
        with pytest.raises(RequestError, match="not among the tools"):
            ToolChoice.of(choice, OFFERED)


def test_valid_tools_are_normalised() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0.5, "enum": [1, None, True]}}}
    nested = tool("f.g-h_1", description="d", parameters=schema, strict=True)
    assert validate_tools([nested]) == [nested]
    assert validate_tools([{"name": "f", "parameters": {}}]) == [tool("f", parameters={})]
    assert validate_tools([tool("f")]) == [tool("f", parameters={"type": "object", "properties": {}})]
    assert validate_tools([]) == []
    more = {"name": "f", "return": {"type": "string"}, "parameters": {}, "description": None}
    kept = {"name": "f", "return": {"type": "string"}, "parameters": {}}
    assert validate_tools([{"type": "function", **more}]) == [{"type": "function", "function": kept}]


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"items": value}
    return value


@pytest.mark.parametrize(
    "tools",
    [
        None,
        {},
        "f",
        [3],
        [{}],
        [{"type": "custom", "custom": {"name": "f"}}],
        [{"type": "function", "function": "f"}],
        [tool("")],
        [tool("a" * 65)],
        [tool("a b")],
        [tool("a\n")],
        [tool("é")],
        [tool("../x")],
        [tool("f", description=3)],
        [tool("f", description="x" * (DESCRIPTION_LENGTH + 1))],
        [tool("f", strict="yes")],
        [tool("f", parameters=[])],
        [tool("f", parameters="object")],
        [tool("f", parameters={"type": "array"})],
        [tool("f", parameters={"x": float("nan")})],
        [tool("f", parameters={"x": object()})],
        [tool("f", parameters={3: 1})],
        [tool("f", parameters={"x": "y" * SCHEMA_SIZE})],
        [tool("f", parameters={"x": 10**SCHEMA_SIZE})],
        [tool("f", parameters={"x": [0] * SCHEMA_SIZE})],
        [tool("f", parameters=nested(100))],
        [tool("f", parameters=nested(100_000))],
        [tool("f", returns=nested(100))],
        [tool("f", returns=object())],
        [tool("f"), tool("f")],
        [tool(f"f{number}") for number in range(TOOLS + 1)],
    ],
)
def test_tools_that_are_refused(tools: Any) -> None:
    with pytest.raises(RequestError) as raised:
        validate_tools(tools)
    assert len(str(raised.value)) < 400
    assert raised.value.where


def test_the_most_tools() -> None:
    assert len(validate_tools([tool(f"f{number}") for number in range(TOOLS)])) == TOOLS
