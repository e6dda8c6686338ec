"""Calls of tools as texts: the form in which a family of models writes them, and the grammar of the calls allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bestiary.errors import RequestError, shown
from bestiary.generation.constraints.lark_text import literal
from bestiary.generation.constraints.limits import LIMITS
from bestiary.generation.constraints.schema import prepare

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True)
class ToolForm:
    """The texts around the name of a tool and its arguments, which are one JSON value."""

    before_name: str
    before_arguments: str
    after: str
    between: str = "\n"
    """Between two calls."""


HERMES = ToolForm('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>")
"""Of NousResearch's Hermes, which Qwen and others follow."""


def rule(
    offered: Sequence[Any], form: ToolForm, most: int, special_tokens: Sequence[str], options: Mapping[str, Any]
) -> str:
    """The grammar of up to `most` calls.  RequestError for a tool without a name or with a schema that is refused."""
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= LIMITS.tools:
        raise RequestError(f"most is {shown(most)}; a whole number from 1 to {LIMITS.tools} is due.")
    if isinstance(offered, str | Mapping) or not 0 < len(offered) <= LIMITS.tools:
        raise RequestError(f"From 1 to {LIMITS.tools} tools are taken, as a list.", where="tools")
    names: list[str] = []
    arguments: list[str] = []
    for place, tool in enumerate(offered):
        name, schema = _read(tool, f"tools/{place}")
        if name in names:
            raise RequestError(f'Two tools are called "{name}".', where=f"tools/{place}")
        names.append(name)
        try:
            prepared = prepare(schema)
        except RequestError as error:
            where = f"tools/{place} ({name}): {error.where or '#'}"
            raise RequestError(error.what, where=where, fix=error.fix) from None
        arguments.append(json.dumps({**prepared, "x-guidance": options}, ensure_ascii=False))
    lines = ["start: call" + (f" ({literal(form.between, special_tokens)} call){{0,{most - 1}}}" if most > 1 else "")]
    lines.append(f"call: {literal(form.before_name, special_tokens)} chosen {literal(form.after, special_tokens)}")
    lines.append("chosen: " + " | ".join(f"tool_{place}" for place in range(len(names))))
    for place, name in enumerate(names):
        head = literal(name + form.before_arguments, special_tokens)
        lines += [f"tool_{place}: {head} arguments_{place}", f"arguments_{place}: %json {arguments[place]}"]
    return "\n".join(lines)


def _read(tool: Any, at: str) -> tuple[str, Any]:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        raise RequestError(f"{shown(tool)} is no tool.", where=at)
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RequestError(f"{shown(name)} is no name of a tool: 1 to 128 letters, digits and _ . : - are.", where=at)
    found = function.get("parameters", function.get("input_schema", function.get("inputSchema")))
    # OpenAI: without parameters a tool takes none.
    return name, {"type": "object", "properties": {}, "additionalProperties": False} if found is None else found
