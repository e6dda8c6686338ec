"""What a text may be: a Grammar, made from whatever users and requests bring."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bestiary.errors import RequestError, shown
from bestiary.generation.constraints import lark_text, schema, tools, type_schema
from bestiary.generation.constraints.keywords import ENFORCED, TYPES
from bestiary.generation.constraints.limits import LIMITS
from bestiary.nearest import did_you_mean

FLEXIBLE, COMPACT = "flexible", "compact"
"""The whitespace between the parts of a JSON text: up to 64 characters of it anywhere, or none."""

_WHITESPACE: Mapping[str, Mapping[str, Any]] = {
    # The bound keeps a model that only writes newlines from doing so to the end of its context.
    FLEXIBLE: {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,64}"},
    COMPACT: {"whitespace_flexible": False},
}


@dataclass(frozen=True)
class Grammar:
    """A language of texts, as llguidance reads it.  Equal grammars have equal texts."""

    text: str
    """Lark with the extensions of llguidance (its docs/syntax.md), or a JSON object with a list of "grammars"."""
    kind: str = field(compare=False)
    """Which of the functions below made it."""
    source: str = field(compare=False, repr=False, default="")
    """What it was made from, for messages."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise RequestError("The grammar is empty.")
        if len(self.text) > LIMITS.characters:
            raise RequestError(f"The grammar has {len(self.text)} characters; at most {LIMITS.characters} are taken.")


def json_schema(schema_or_type: Any, *, whitespace: str = FLEXIBLE) -> Grammar:
    """JSON texts that satisfy a schema: a dict, its text, a pydantic model, a dataclass or a type such as list[int].

    The members of an object come in the order of `properties`, then those of `required` that it lacks, then any others.
    There is no whitespace before or after the text.  Names beyond `properties` may come twice.  Characters are escaped
    only where JSON demands it.  RequestError names a keyword that cannot be enforced, with its JSON pointer.
    """
    given = type_schema.schema_of(schema_or_type) if type_schema.is_type(schema_or_type) else schema_or_type
    given = schema.read(given)
    prepared = schema.prepare(given)
    return Grammar(_json_text(prepared, whitespace), "json_schema", json.dumps(given, ensure_ascii=False))


def json_object(*, whitespace: str = FLEXIBLE) -> Grammar:
    """Any JSON object."""
    return Grammar(_json_text({"type": "object"}, whitespace), "json_object")


def regex(pattern: str | re.Pattern[str]) -> Grammar:
    """Texts that match a regular expression from their first to their last character.

    The syntax is that of Rust's regex crate, which is Python's but for lookaround and references back.  `.` matches no
    newline; \\d, \\w and \\s mean the classes of Unicode.
    """
    return Grammar(lark_text.regex_rule(pattern), "regex", str(getattr(pattern, "pattern", pattern)))


def lark(text: str) -> Grammar:
    """A context-free grammar in the Lark variant of llguidance; its first rule is called `start`."""
    lark_text.check(text)
    return Grammar(text, "lark", text)


def choices(texts: Iterable[str]) -> Grammar:
    """One of some texts."""
    given = (texts,) if isinstance(texts, str) else tuple(texts)
    return Grammar(lark_text.choice_rule(given), "choices")


def raw(grammar: str | Mapping[str, Any]) -> Grammar:
    """A composed grammar of llguidance: {"grammars": [{"name": ..., "json_schema" or "lark_grammar": ...}, ...]}.

    Its schemas are checked as those of `json_schema`.
    """
    if isinstance(grammar, str) and not grammar.lstrip().startswith("{"):
        return lark(grammar)
    whole = schema.read(dict(grammar) if isinstance(grammar, Mapping) else grammar)
    parts = whole.get("grammars") if isinstance(whole, dict) else None
    if not isinstance(parts, list) or not parts or set(whole) != {"grammars"}:
        raise RequestError('A raw grammar is an object with "grammars", a list of at least one.', where="#")
    made = [_part(part, f"#/grammars/{place}") for place, part in enumerate(parts)]
    lark_text.check("\n".join(part["lark_grammar"] for part in made if "lark_grammar" in part) or "start:")
    return Grammar(json.dumps({"grammars": made}, ensure_ascii=False), "raw")


def tool_call(
    offered: Sequence[Any],
    *,
    form: tools.ToolForm = tools.HERMES,
    most: int = 1,
    special_tokens: Iterable[str] = (),
    whitespace: str = FLEXIBLE,
) -> Grammar:
    """One call, or up to `most`, of the offered tools, with arguments that satisfy the tool's schema.

    `offered` are tools as OpenAI's API has them.  Of the texts in `form`, those among `special_tokens` (see
    `Tokenizer.special_texts`) must come as these tokens, and not spelled with others.
    """
    text = tools.rule(offered, form, most, tuple(special_tokens), _options(whitespace))
    return Grammar(text, "tool_call")


def as_grammar(value: Any) -> Grammar | None:
    """The grammar that a user or a request means; None for none.

    Takes a Grammar, a pydantic model, a dataclass or another type; OpenAI's response_format and text.format
    ({"type": "json_schema", ...}, "json_object", "text"); {"type": "regex" | "lark" | "llguidance" | "json_schema",
    "value": ...} as mistral.rs has it; vLLM's guided_json and its like, with or without the prefix; a bare JSON schema;
    a compiled pattern; a list of texts to choose from.
    """
    if value is None or isinstance(value, Grammar):
        return value
    if isinstance(value, re.Pattern):
        return regex(value)
    if type_schema.is_type(value):
        return json_schema(value)
    if isinstance(value, list | tuple):
        return choices(value)
    if not isinstance(value, Mapping):
        fix = "use json_schema(), regex(), lark() or choices() to say what it is"
        raise RequestError(f"{shown(value)} is no grammar.", fix=fix)
    for name in value:
        if str(name).removeprefix("guided_") in _GUIDED and (str(name).startswith("guided_") or len(value) == 1):
            return _guided(value)
    return _format(value)


def _format(value: Mapping[str, Any]) -> Grammar | None:
    kind = value.get("type")
    if value and not any(name in ENFORCED for name in value):
        names = [*_GUIDED, *(f"guided_{name}" for name in _GUIDED)]
        fix = next((told for name in value if (told := did_you_mean(str(name), names))), None)
        raise RequestError(f"{shown(dict(value))} is no grammar: no keyword of JSON Schema is in it.", fix=fix)
    if not isinstance(kind, str) or kind in TYPES:
        return json_schema(dict(value))
    inner = value.get("value", value.get(kind))
    match kind:
        case "text":
            return None
        case "json_object":
            return json_object()
        case "json_schema":
            wrapped = inner if isinstance(inner, Mapping) and "value" not in value else value
            found = wrapped.get("schema", value.get("value"))
            if found is None:
                raise RequestError('The response format "json_schema" has no schema.', where="response_format")
            return json_schema(dict(found) if isinstance(found, Mapping) else found)
        case "regex" | "lark" | "grammar" | "choice" | "choices" | "llguidance":
            if inner is None:
                raise RequestError(f'The response format "{kind}" has no value.', where="response_format")
            return _GUIDED[kind](inner)
    known = ("text", "json_object", "json_schema", "regex", "lark", "choice", "llguidance")
    fix = did_you_mean(kind, known) or f"there are {', '.join(known)}"
    raise RequestError(f'There is no response format "{kind}".', where="response_format", fix=fix)


def _guided(value: Mapping[str, Any]) -> Grammar | None:
    asked = {str(name).removeprefix("guided_"): inner for name, inner in value.items() if inner not in (None, False)}
    if len(asked) != 1:
        raise RequestError(f"One constraint is due, not {', '.join(asked) or 'none'}.")
    [(name, inner)] = asked.items()
    if name not in _GUIDED:
        raise RequestError(f'There is no constraint "{name}".', fix=did_you_mean(name, _GUIDED) or None)
    return _GUIDED[name](inner)


def _choose(texts: Any) -> Grammar:
    if not isinstance(texts, list | tuple):
        raise RequestError(f"A list of texts is due, not {shown(texts)}.")
    return choices(texts)


_GUIDED = {
    "json": json_schema,
    "json_object": lambda value: json_object(),
    "regex": regex,
    "grammar": lark,
    "lark": lark,
    "choice": _choose,
    "choices": _choose,
    "llguidance": raw,
}


def _part(part: Any, at: str) -> dict[str, Any]:
    if not isinstance(part, dict) or set(part) - {"name", "json_schema", "lark_grammar"}:
        raise RequestError(
            'A part of a raw grammar has "json_schema" or "lark_grammar", and may have a "name".', where=at
        )
    if ("json_schema" in part) == ("lark_grammar" in part):
        raise RequestError('A part of a raw grammar has either "json_schema" or "lark_grammar".', where=at)
    named = {"name": part["name"]} if isinstance(part.get("name"), str) else {}
    if "lark_grammar" in part:
        if not isinstance(part["lark_grammar"], str):
            raise RequestError("lark_grammar is no text.", where=at)
        return {**named, "lark_grammar": part["lark_grammar"]}
    return {**named, "json_schema": {**schema.prepare(part["json_schema"]), "x-guidance": _options(FLEXIBLE)}}


def _options(whitespace: str) -> Mapping[str, Any]:
    if whitespace not in _WHITESPACE:
        fix = did_you_mean(str(whitespace), _WHITESPACE) or f"there are {', '.join(_WHITESPACE)}"
        raise RequestError(f"There is no whitespace {shown(whitespace)}.", fix=fix)
    return _WHITESPACE[whitespace]


def _json_text(prepared: Mapping[str, Any], whitespace: str) -> str:
    whole = {**prepared, "x-guidance": _options(whitespace)}
    return json.dumps({"grammars": [{"json_schema": whole}]}, ensure_ascii=False)
