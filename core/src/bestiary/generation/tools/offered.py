"""The tools that a request offers, as a parser needs them: their names, and the types of their arguments."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bestiary.generation.tools.json_scanner import json_kind

NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""The characters of a tool's name."""
NAME_LENGTH = 64
_WHOLE_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{NAME_LENGTH}}}\Z")
_WHOLE_NUMBER = re.compile(r"-?[0-9]+\Z")
_KINDS = {
    "string": {"string"},
    "integer": {"integer", "number", "float"},
    "number": {"number", "float"},
    "boolean": {"boolean", "bool"},
    "null": {"null"},
    "object": {"object", "dict"},
    "array": {"array", "list"},
}
_TYPE_OF = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", list: "array"}


def is_name(name: object) -> bool:
    """Whether this may be the name of a tool: 1 to 64 letters, digits, underscores, dots and hyphens."""
    return isinstance(name, str) and _WHOLE_NAME.match(name) is not None


class Offered:
    """The tools of a request; of None every well-formed name is accepted, and nothing is known of the arguments."""

    def __init__(self, tools: Sequence[Mapping[str, Any]] | None) -> None:
        """`tools` as in a request: {"type": "function", "function": {...}}, or the inner object alone."""
        self._properties: dict[str, Mapping[str, Any]] | None = None
        if tools is not None:
            functions = [_mapping(tool.get("function", tool)) for tool in tools]
            self._properties = {
                function["name"]: _mapping(_mapping(function.get("parameters")).get("properties"))
                for function in functions
                if is_name(function.get("name"))
            }

    def accepts(self, name: str) -> bool:
        return is_name(name) if self._properties is None else name in self._properties

    def names(self, name: str) -> bool:
        """Whether the request itself offers a tool of this name."""
        return self._properties is not None and name in self._properties

    def value(self, name: str, key: str, text: str) -> str:
        """The JSON text of an argument that a format writes without quotes.

        What can only be a string stays one.  Anything else is taken as JSON where it is JSON of a type that the schema
        names, and is a string otherwise, so that what checks the arguments sees what was written.
        """
        types = named_types(_mapping((self._properties or {}).get(name)).get(key))
        bare = text.strip()
        if types != {"string"}:
            if types == {"boolean"} and bare.lower() in ("true", "false"):
                return bare.lower()
            kind = json_kind(bare)
            fits = types & _KINDS["integer" if kind == "number" and _WHOLE_NUMBER.match(bare) else kind or "string"]
            if kind and ("string" not in types or fits):
                return bare
        return json.dumps(text, ensure_ascii=False)


def named_types(schema: Any) -> set[str]:
    """The types that a schema names on its first level; empty where it does not say."""
    found: set[str] = set()
    schema = _mapping(schema)
    choices = [choice for key in ("anyOf", "oneOf") for choice in _list(schema.get(key))]
    for place in (schema, *map(_mapping, choices)):
        named = place.get("type")
        found.update(name.lower() for name in (_list(named) or [named]) if isinstance(name, str))
        values = [*_list(place.get("enum")), *([place["const"]] if "const" in place else [])]
        if named is None:
            found.update(_TYPE_OF.get(type(value), "object") for value in values)
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
