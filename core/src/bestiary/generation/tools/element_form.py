"""Arguments in elements of their own, strings as they are and other values as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.errors import RequestError, shown
from bestiary.generation.constraints.pointers import escape
from bestiary.generation.constraints.tools import Rules
from bestiary.generation.tools.argument_text import check_keywords, members, text_value
from bestiary.generation.tools.offered import named_types

_KEY = re.compile(r"[^<>\n]{1,128}")


@dataclass(frozen=True)
class ElementForm:
    """The texts around the keys and values of arguments, of which those come that the schema lists, in its order.

    What can only be a string is written without quotes, and so is what may be one and needs no quotes to be right.
    """

    before_key: str
    before_value: str
    after_value: str
    never: tuple[str, ...]
    """Texts that a value without quotes cannot have in it; one of them is in `after_value`."""

    def write(self, rules: Rules, name: str, schema: Mapping[str, Any], prepared: Mapping[str, Any]) -> str:
        check_keywords(prepared, {"type", "properties", "required", "additionalProperties", "$defs"}, "")
        definitions = prepared.get("$defs", {})
        listed, required = members(prepared, "")
        stated = schema.get("properties", {})
        parts = []
        for place, (key, value) in enumerate(listed.items()):
            at = f"/properties/{escape(key)}"
            if not _KEY.fullmatch(key):
                raise RequestError(f"The format of the calls cannot write the name {shown(key)}.", where=f"#{at}")
            if named_types(stated.get(key)) == {"string"}:
                inner = text_value(rules, f"{name}_{place}", value, self.after_value, self.never, at)
            elif _is_any_text(value):
                inner = text_value(rules, f"{name}_{place}", {}, self.after_value, self.never, at)
            else:
                inner = f"{json_value(rules, f'{name}_{place}', value, definitions)} {rules.literal(self.after_value)}"
            part = f"{rules.literal(self.before_key + key + self.before_value)} {inner}"
            parts.append(part if key in required else f"({part})?")
        return rules.add(name, " ".join(parts) or '""')


def _is_any_text(schema: Mapping[str, Any]) -> bool:
    """Whether a schema names several types and nothing else: however `Offered.value` reads a text, it satisfies it."""
    parts = schema.get("anyOf", [schema]) if set(schema) == {"anyOf"} else [schema]
    if not all(isinstance(part, Mapping) and set(part) == {"type"} for part in parts):
        return False
    return any(part["type"] == "string" or "string" in part["type"] for part in parts)


def json_value(rules: Rules, name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A rule: a JSON value on one line.  RequestError for a schema that refers to the arguments as a whole."""
    text = json.dumps(schema, ensure_ascii=False)
    if '"$ref": "#"' in text or '"$ref": "#"' in json.dumps(definitions):
        raise RequestError("The format of the calls cannot write arguments in themselves.", where="#")
    whole = {**schema, "$defs": definitions} if definitions else schema
    options = {"whitespace_pattern": r"[\x20]"}
    return rules.add(name, f"%json {json.dumps({**whole, 'x-guidance': options}, ensure_ascii=False)}")
