"""Arguments in a notation close to JSON: bare keys, and strings between marks of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bestiary.errors import RequestError, shown
from bestiary.generation.constraints.pointers import escape
from bestiary.generation.constraints.tools import Rules
from bestiary.generation.tools.argument_text import check_keywords, members, text_value

_KEY = re.compile(r"""[^:,\[\]{}()<>"'\s]{1,128}""")
_SCALARS = {"number", "integer", "boolean", "null"}
_NUMBERS = {
    "integer": "/-?(0|[1-9][0-9]{0,30})/",
    "number": r"/-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?/",
}
_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_ANY = ["string", "number", "boolean", "null", "array", "object"]


@dataclass(frozen=True)
class NotationForm:
    """`{key:value,key:value}` with `quote` before and after each string; no white space, as the templates write it."""

    quote: str

    def write(self, rules: Rules, name: str, schema: Mapping[str, Any], prepared: Mapping[str, Any]) -> str:
        return _Writer(rules, name, self.quote, prepared).value(name, prepared, "")


class _Writer:
    """The rules of one tool's arguments."""

    def __init__(self, rules: Rules, name: str, quote: str, prepared: Mapping[str, Any]) -> None:
        self._rules, self._name, self._quote = rules, name, rules.literal(quote)
        self._end = quote
        self._definitions = prepared.get("$defs", {})
        self._known: set[str] = set()

    def value(self, name: str, schema: Mapping[str, Any] | bool, at: str) -> str:
        """Adds the rule of any value of a schema, and returns its name."""
        schema = {} if schema is True else schema
        if schema is False:
            raise RequestError("No value satisfies the schema.", where=f"#{at}")
        if "$ref" in schema:
            check_keywords(schema, {"$ref", "$defs"} | ({"type"} if not at else set()), at)
            return self._rules.add(name, self._reference(schema["$ref"]))
        if "anyOf" in schema:
            check_keywords(schema, {"anyOf"}, at)
            parts = [part for part in enumerate(schema["anyOf"]) if part[1] is not False]
            return self._one_of(name, [self.value(f"{name}_{place}", part, at) for place, part in parts], at)
        if "enum" in schema or "const" in schema:
            check_keywords(schema, {"type", "enum", "const"}, at)
            return self._one_of(name, [self._constant(value, at) for value in _allowed(schema)], at)
        stated = schema.get("type", _ANY)
        kinds = [stated] if isinstance(stated, str) else stated
        return self._one_of(name, [self._kind(kind, f"{name}_{kind}", schema, at) for kind in kinds], at)

    def _one_of(self, name: str, parts: Sequence[str], at: str) -> str:
        if not parts:
            raise RequestError("No value satisfies the schema.", where=f"#{at}")
        return self._rules.add(name, " | ".join(parts))

    def _reference(self, pointer: str) -> str:
        if pointer == "#":
            return self._name
        key = pointer.removeprefix("#/$defs/")
        name = f"{self._name}_ref_{key}"
        if key not in self._known:
            self._known.add(key)
            self.value(name, self._definitions[key], f"/$defs/{key}")
        return name

    def _constant(self, value: Any, at: str) -> str:
        if isinstance(value, str):
            if self._end in value:
                raise RequestError(f"The format of the calls cannot write the value {shown(value)}.", where=f"#{at}")
            return self._rules.literal(self._end + value + self._end)
        if value is not None and not isinstance(value, bool | int | float):
            raise RequestError("Only single values can be chosen from in the format of these calls.", where=f"#{at}")
        return self._rules.literal(json.dumps(value))

    def _kind(self, kind: str, name: str, schema: Mapping[str, Any], at: str) -> str:
        """The expression of the values of one type; keywords of other types ask nothing of them."""
        number = "number" if kind == "integer" else kind
        mine = {keyword: value for keyword, value in schema.items() if _KEYWORDS.get(keyword, number) == number}
        if kind in _SCALARS:
            check_keywords(mine, {"type", *_BOUNDS}, at)
            if mine.keys() & _BOUNDS or kind not in _NUMBERS:
                return self._rules.add(name, f"%json {json.dumps({**mine, 'type': kind})}")
            return self._rules.add(kind.upper(), _NUMBERS[kind])
        if kind == "string":
            return f"{self._quote} {text_value(self._rules, name, {**mine, 'type': kind}, self._end, [self._end], at)}"
        return self._array(name, mine, at) if kind == "array" else self._object(name, mine, at)

    def _array(self, name: str, schema: Mapping[str, Any], at: str) -> str:
        check_keywords(schema, {"type", "items", "minItems", "maxItems"}, at)
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if schema.get("items", True) is False or most == 0:
            return self._rules.literal("[]")
        item = self._shared(name, schema.get("items", True), f"{at}/items")
        more = f"{max(least - 1, 0)},{'' if most is None else most - 1}"
        filled = f'"[" {item} ("," {item}){{{more}}} "]"'
        return self._rules.add(name, filled if least else f'"[]" | {filled}')

    def _object(self, name: str, schema: Mapping[str, Any], at: str) -> str:
        if schema.get("properties") or not at:
            check_keywords(schema, {"type", "properties", "required", "additionalProperties", "$defs"}, at)
            return self._rules.add(name, f'"{{" {self._members(name, schema, at)} "}}"')
        check_keywords(schema, {"type", "properties", "additionalProperties", "$defs"}, at)
        if schema.get("additionalProperties", True) is False:
            return self._rules.literal("{}")
        value = self._shared(name, schema.get("additionalProperties", True), f"{at}/additionalProperties")
        member = f'{self._rules.add("KEY", "/[A-Za-z_][A-Za-z0-9_]{0,63}/")} ":" {value}'
        return self._rules.add(name, f'"{{}}" | "{{" {member} ("," {member})* "}}"')

    def _shared(self, name: str, schema: Any, at: str) -> str:
        """The rule of a schema; of the one that takes anything there is but one, which refers to itself."""
        if schema not in (True, {}):
            return self.value(f"{name}_item", schema, at)
        if "any" not in self._known:
            self._known.add("any")
            self.value(f"{self._name}_any", {}, "/any")
        return f"{self._name}_any"

    def _members(self, name: str, schema: Mapping[str, Any], at: str) -> str:
        """The members that the schema lists, in its order, with commas between those that come."""
        listed, required = members(schema, at)
        rules, following, first = self._rules, '""', '""'
        for place, (key, value) in reversed(list(enumerate(listed.items()))):
            where = f"{at}/properties/{escape(key)}"
            if not _KEY.fullmatch(key):
                raise RequestError(f"The format of the calls cannot write the name {shown(key)}.", where=f"#{where}")
            inner = self.value(f"{name}_{place}", value, where)
            head = rules.literal(f"{key}:")
            due = key in required
            first = rules.add(f"{name}_first_{place}", f"{head} {inner} {following}" + ("" if due else f" | {first}"))
            following = rules.add(
                f"{name}_next_{place}", f'"," {head} {inner} {following}' + ("" if due else f" | {following}")
            )
        return first


_KEYWORDS = {
    **dict.fromkeys(_BOUNDS, "number"),
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), "string"),
    **dict.fromkeys(("items", "prefixItems", "additionalItems", "minItems", "maxItems"), "array"),
    **dict.fromkeys(("properties", "required", "additionalProperties", "patternProperties"), "object"),
    **dict.fromkeys(("minProperties", "maxProperties", "$defs"), "object"),
}
"""The type of which each keyword asks something."""


def _allowed(schema: Mapping[str, Any]) -> list[Any]:
    """The values of an enum or const that are of the schema's types."""
    stated = schema.get("type", _ANY)
    kinds = [stated] if isinstance(stated, str) else stated
    values = schema.get("enum", [schema.get("const")])
    if "const" in schema:
        values = [value for value in values if value == schema["const"]]
    return [value for value in values if _kind_of(value) & set(kinds)]


def _kind_of(value: Any) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int | float):
        return {"number", *(["integer"] if float(value).is_integer() else [])}
    return {"string"} if isinstance(value, str) else {"null"} if value is None else {"array", "object"}
