"""What a request says about tools: which there are, and whether and which the model must call."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bestiary.errors import OptionError, RequestError, shown
from bestiary.generation.tools.offered import is_name
from bestiary.nearest import nearest

TOOLS = 128
"""The most tools of a request, as in the OpenAI API."""
DESCRIPTION_LENGTH = 16_384
SCHEMA_SIZE = 262_144
"""The most characters in the keys, texts and numbers of a schema, each value and key counting at least one."""
SCHEMA_DEPTH = 64

MODES = ("auto", "none", "required")


@dataclass(frozen=True)
class ToolChoice:
    """Whether the model may ("auto"), must ("required") or must not ("none") call, and which tools count."""

    mode: str
    names: tuple[str, ...] = ()
    """The tools that may be called, in the order in which they were offered."""

    @property
    def forced(self) -> str | None:
        """The one tool that must be called, where there is but one."""
        return self.names[0] if self.mode == "required" and len(self.names) == 1 else None

    def offer(self, tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those of the tools that count: what the prompt shows and the parser accepts."""
        return [tool for tool in tools if _function(tool).get("name") in self.names]

    @classmethod
    def of(cls, choice: Any, tools: Sequence[Mapping[str, Any]] | None) -> "ToolChoice":
        """`tool_choice` of a request, in the forms of Chat Completions and of Responses, with validated `tools`.

        Without a choice it is "auto" where there are tools.  OptionError for an unknown mode or form, RequestError for
        a tool that was not offered, and where a call is required of no tools.
        """
        offered = tuple(_function(tool)["name"] for tool in tools or ())
        if choice is None:
            choice = "auto"
        if isinstance(choice, str):
            return _with_mode(choice, offered)
        if isinstance(choice, Mapping) and choice.get("type") == "function":
            name = _function(choice).get("name")
            return cls("required", _named((name,), offered))
        if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
            allowed = choice.get("allowed_tools", choice)
            named = allowed.get("tools") if isinstance(allowed, Mapping) else None
            if not isinstance(named, list | tuple) or not named or not all(isinstance(tool, Mapping) for tool in named):
                raise OptionError("allowed_tools needs a list of at least one tool.", where="tool_choice")
            names = _named(tuple(_function(tool).get("name") for tool in named), offered)
            mode = allowed.get("mode")
            if mode not in ("auto", "required"):
                raise OptionError(f'The mode of allowed_tools is "auto" or "required", not {shown(mode)}.')
            return cls(mode, tuple(name for name in offered if name in names))
        raise OptionError(
            f"A tool_choice is one of {', '.join(MODES)}, a function or allowed_tools, not {shown(choice)}.",
            where="tool_choice",
            fix='for one tool: {"type": "function", "function": {"name": ...}}',
        )


def validate_tools(tools: Any) -> list[dict[str, Any]]:
    """The tools of a request as {"type": "function", "function": {...}}.  RequestError where they break a bound.

    Each has a name of its own, of 1 to 64 letters, digits, "_", "." and "-", and a schema that is a JSON object; one
    without parameters has none.  Size and depth are bounded.  What else a function says stays, for the chat template.
    """
    if not isinstance(tools, list | tuple):
        raise RequestError(f"tools must be a list, not {shown(tools)}.", where="tools")
    if len(tools) > TOOLS:
        raise RequestError(f"There are {len(tools)} tools; at most {TOOLS} may be offered.", where="tools")
    made = [_validated(tool, f"tools[{place}]") for place, tool in enumerate(tools)]
    seen: set[str] = set()
    for place, tool in enumerate(made):
        name = tool["function"]["name"]
        if name in seen:
            raise RequestError(f"Two tools have the name {name!r}.", where=f"tools[{place}]")
        seen.add(name)
    return made


def _validated(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, Mapping) or tool.get("type", "function") != "function":
        raise RequestError('A tool must be an object of type "function".', where=where)
    function = _function(tool)
    name = function.get("name")
    if not is_name(name):
        raise RequestError(
            f"{shown(name)} is not the name of a tool.",
            where=where,
            fix='1 to 64 letters, digits, "_", "." and "-"',
        )
    description = function.get("description")
    if description is not None and (not isinstance(description, str) or len(description) > DESCRIPTION_LENGTH):
        raise RequestError(
            f"The description of {name} must be a text of at most {DESCRIPTION_LENGTH} characters.", where=where
        )
    strict = function.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise RequestError(f"strict of {name} must be true or false, not {shown(strict)}.", where=where)
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise RequestError(
            'The parameters of a tool must be a JSON schema of type "object".', where=f"{where}.parameters"
        )
    _check_json(parameters, f"{where}.parameters")
    flat = ("type",) if function is tool else ()
    known = {key: value for key, value in function.items() if value is not None and key not in flat}
    _check_json({key: value for key, value in known.items() if key != "parameters"}, where)
    return {"type": "function", "function": {**known, "parameters": parameters}}


def _check_json(schema: Any, where: str) -> None:
    """That it is JSON within the bounds.  What the keywords of a schema mean is for what uses them to check."""
    left = SCHEMA_SIZE
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > SCHEMA_DEPTH:
            raise RequestError(f"The schema is nested deeper than {SCHEMA_DEPTH} levels.", where=where)
        left -= 1
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise RequestError("The keys of a schema must be texts.", where=where)
            left -= sum(map(len, value)) + len(value)
            waiting += ((part, depth + 1) for part in value.values())
        elif isinstance(value, list | tuple):
            waiting += ((part, depth + 1) for part in value)
        elif isinstance(value, str):
            left -= len(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            left -= value.bit_length() // 3
        elif isinstance(value, float) and not math.isfinite(value):
            raise RequestError("A schema cannot hold NaN or infinity.", where=where)
        elif not isinstance(value, bool | int | float | None):
            raise RequestError(f"{shown(value)} cannot be part of a JSON schema.", where=where)
        if left < 0:
            raise RequestError(f"The schema has more than {SCHEMA_SIZE} characters.", where=where)


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The function of a tool, which Chat Completions nests and Responses does not."""
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) else {}


def _with_mode(mode: str, offered: tuple[str, ...]) -> ToolChoice:
    if mode not in MODES:
        near = nearest(mode, MODES, 1)
        fix = f"use {near[0]!r}" if near else f"use one of {', '.join(MODES)}, or name a function"
        raise OptionError(f"There is no tool_choice {shown(mode)}.", where="tool_choice", fix=fix)
    if mode == "required" and not offered:
        raise RequestError("A tool call is required, but no tools are offered.", where="tool_choice")
    return ToolChoice(mode if offered else "none", () if mode == "none" else offered)


def _named(names: tuple[Any, ...], offered: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in offered:
            near = nearest(name, offered, 1) if isinstance(name, str) else ()
            raise RequestError(
                f"tool_choice names {shown(name)}, which is not among the tools.",
                where="tool_choice",
                fix=f"use {near[0]!r}" if near else None,
            )
    return names
