"""Arguments that a format writes as plain text, as rules of a grammar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bestiary.errors import RequestError, shown
from bestiary.generation.constraints.tools import Rules

_TEXT_KEYWORDS = {"type", "enum", "const", "minLength", "maxLength"}


def text_value(rules: Rules, name: str, schema: Mapping[str, Any], end: str, never: Sequence[str], at: str) -> str:
    """The expression of a string between no quotes, with the `end` behind it; it has no text of `never` in it.

    RequestError for a keyword that cannot be enforced where a text has no quotes.
    """
    check_keywords(schema, _TEXT_KEYWORDS, at)
    if "enum" in schema or "const" in schema:
        values = [value for value in schema.get("enum", [schema.get("const")]) if isinstance(value, str)]
        for value in values:
            if any(text in value for text in never):
                raise RequestError(f"The format of the calls cannot write the value {shown(value)}.", where=f"#{at}")
        if not values:
            raise RequestError("No text satisfies the schema.", where=f"#{at}")
        return rules.one_of([value + end for value in values])
    least, most = schema.get("minLength", 0), schema.get("maxLength", "")
    body = rules.add(f"{name.upper()}_ALL", f"/(?s:.{{{least},{most}}})/") if least or most != "" else "ANY"
    return rules.closed(name, body, end, never)


def check_keywords(schema: Mapping[str, Any], known: set[str], at: str) -> None:
    """Raises RequestError for one that is not known."""
    for keyword in schema:
        if keyword not in known:
            raise RequestError(
                f'The keyword "{keyword}" cannot be enforced in the format of calls that this model speaks.',
                where=f"#{at}/{keyword}",
                fix="leave it out, and check the arguments",
            )


def members(prepared: Mapping[str, Any], at: str) -> tuple[Mapping[str, Any], Sequence[str]]:
    """The properties of an object, those added that are required without being listed, and the required ones.

    A property that nothing satisfies is left out.
    """
    required = prepared.get("required", [])
    listed = {**prepared.get("properties", {})}
    for name in required:
        others = prepared.get("additionalProperties", True)
        listed.setdefault(name, others)
        if listed[name] is False:
            raise RequestError(f"No value of {name!r} satisfies the schema.", where=f"#{at}/required")
    return {name: {} if schema is True else schema for name, schema in listed.items() if schema is not False}, required
