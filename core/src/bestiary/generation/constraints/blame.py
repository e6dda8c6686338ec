"""Which keyword of a schema llguidance means when it refuses the whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from bestiary.errors import RequestError
from bestiary.generation.constraints.grammar import Grammar
from bestiary.generation.constraints.keywords import ENFORCED
from bestiary.generation.constraints.pointers import escape

_SIGNS = {
    "oneOf": "oneOf",
    "patternProperty": "patternProperties",
    "circular references": "$ref",
    "regex parse error": "pattern",
    "multiple of": "multipleOf",
    "min/maxProperties": "minProperties",
}
_SHOWN = 3


def blamed(error: RequestError, grammar: Grammar, refuses: Callable[[str], bool]) -> RequestError:
    """The same error with the keyword and its places in the schema that the grammar was made from.

    llguidance names no place, and often the keyword only.  `refuses` says whether it refuses a grammar on its own.
    """
    if grammar.kind == "regex":
        return RequestError(error.what, where=grammar.source)  # llguidance counts in a rule around it
    if grammar.kind != "json_schema" or not grammar.source:
        return error
    schema = json.loads(grammar.source)
    named = [keyword for sign, keyword in _SIGNS.items() if sign in error.what]
    named += [keyword for keyword in sorted(ENFORCED, key=len, reverse=True) if keyword in error.what]
    keyword = next((keyword for keyword in named if any(_places(schema, keyword))), None)
    if keyword is None:
        return error
    places = list(_places(schema, keyword))
    if keyword == "pattern":
        places = [(at, value) for at, value in places if refuses(_pattern(value))] or places
    where = ", ".join(f"#{at}" for at, _ in places[:_SHOWN]) or None
    what = error.what
    fix = error.fix
    if keyword == "oneOf":
        what = 'The keyword "oneOf" cannot be enforced while decoding: its alternatives may share values.'
        fix = "use anyOf, or give the alternatives a required property with a const that tells them apart"
    elif f'"{keyword}"' not in what:
        what = f'The keyword "{keyword}" is refused: {what.removeprefix("The grammar is refused: ")}'
    return RequestError(what, where=where, fix=fix)


def _pattern(value: Any) -> str:
    return json.dumps({"grammars": [{"json_schema": {"type": "string", "pattern": value}}]})


def _places(schema: Any, keyword: str) -> Iterator[tuple[str, Any]]:
    pending: list[tuple[str, Any]] = [("", schema)]
    while pending:
        at, member = pending.pop()
        if isinstance(member, dict):
            if keyword in member:
                yield f"{at}/{escape(keyword)}", member[keyword]
            pending.extend((f"{at}/{escape(name)}", inner) for name, inner in reversed(member.items()))
        elif isinstance(member, list):
            pending.extend((f"{at}/{place}", inner) for place, inner in reversed(list(enumerate(member))))
