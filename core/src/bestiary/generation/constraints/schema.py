"""A JSON schema as llguidance gets it: checked, bounded, and with nothing in it that would be passed over."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from bestiary.errors import RequestError, shown
from bestiary.generation.constraints.disjoint import disjoint
from bestiary.generation.constraints.keywords import (
    ANNOTATIONS,
    ENFORCED,
    FIXES,
    FORMATS,
    NUMBER_FORMATS,
    OWN_FORMATS,
    REFUSED,
    TYPES,
)
from bestiary.generation.constraints.limits import LIMITS
from bestiary.generation.constraints.pointers import References, escape, measure
from bestiary.nearest import nearest

Schema = Mapping[str, Any] | bool


def read(schema: object) -> Any:
    """A schema as Python values.  RequestError where it is no JSON, or too large or deep to look at."""
    if isinstance(schema, str):
        if len(schema) > LIMITS.characters:
            raise RequestError(f"The schema has {len(schema)} characters; at most {LIMITS.characters} are taken.")
        try:
            schema = json.loads(schema, parse_constant=_no_constant)
        except RecursionError:
            raise RequestError(f"The schema is nested too deeply; {LIMITS.depth} levels are taken.") from None
        except ValueError as error:
            raise RequestError(f"The schema is not JSON: {error}") from None
    measure(schema, "The schema")
    return schema


def prepare(schema: object) -> dict[str, Any]:
    """The schema for llguidance, with the same valid values.

    Annotations are left out, references point into one `$defs`, and a `oneOf` whose alternatives exclude each other is
    an `anyOf`.  RequestError names a keyword that cannot be enforced, and where it stands (RFC 6901).
    """
    root = read(schema)
    if not isinstance(root, dict | bool):
        raise RequestError(f"A schema is an object, not {shown(root)}.")
    return _Preparation(root).whole()


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


class _Preparation:
    def __init__(self, root: Schema) -> None:
        self._root = root
        self._references = References(root)
        self._names: dict[str, str] = {}
        self._pending: list[tuple[str, Schema]] = []
        self._level = self._deepest = 0
        self._divisors: list[tuple[int, str]] = []
        self._combined = False

    def whole(self) -> dict[str, Any]:
        prepared = self._schema(self._root, "")
        if prepared is False:
            raise RequestError("No text satisfies the schema: it is false.", where="#")
        whole: dict[str, Any] = {} if prepared is True else dict(prepared)
        levels, definitions = self._deepest, {}
        while self._pending:
            pointer, schema = self._pending.pop()
            self._level = self._deepest = 0
            definitions[self._names[pointer]] = self._schema(schema, pointer)
            levels += self._deepest + 1
        if levels > LIMITS.levels:
            raise RequestError(
                f"The schema and what it refers to have {levels} levels; at most {LIMITS.levels} are taken."
            )
        if definitions:
            whole["$defs"] = definitions
        self._check_divisors()
        return whole

    def _schema(self, schema: object, at: str) -> dict[str, Any] | bool:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise _error(f"A schema is an object, not {shown(schema)}", at)
        self._level += 1
        self._deepest = max(self._deepest, self._level)
        made: dict[str, Any] = {}
        for keyword, value in schema.items():
            where = f"{at}/{escape(keyword)}"
            if keyword in ENFORCED:
                self._keyword(keyword, value, where, schema, made)
            elif keyword in REFUSED:
                if not REFUSED[keyword](value, schema):
                    fix = FIXES.get(keyword, "leave it out, and check the parsed value")
                    raise _error(f'The keyword "{keyword}" cannot be enforced while decoding', where, fix)
            elif keyword not in ANNOTATIONS and not keyword.startswith(("x-", "_")):
                # Other unknown keywords are annotations (JSON Schema 2020-12 core, 6.5).
                for meant in nearest(keyword, ENFORCED | frozenset(REFUSED), 1, 0.85):
                    raise _error(f'There is no keyword "{keyword}"', where, f'did you mean "{meant}"?')
        self._level -= 1
        return made

    def _keyword(self, keyword: str, value: Any, at: str, schema: Mapping[str, Any], made: dict[str, Any]) -> None:
        match keyword:
            case "$ref":
                made[keyword] = self._reference(value, at)
            case "oneOf":
                self._one_of(value, at, schema, made)
            case "allOf" | "anyOf" | "prefixItems":
                self._combined = self._combined or keyword != "prefixItems"
                made.setdefault(keyword, []).extend(self._schemas(value, at))
            case "items" if isinstance(value, list):  # until draft 2019-09
                made[keyword] = self._schemas(value, at) if value else []
            case "additionalItems" if not isinstance(schema.get("items"), list):
                self._schema(value, at)  # it asks for nothing there
            case "items" | "additionalItems" | "additionalProperties":
                made[keyword] = self._schema(value, at)
            case "properties" | "patternProperties":
                names = _typed(value, dict, at)
                if len(names) > LIMITS.properties:
                    raise _error(f"{len(names)} properties; at most {LIMITS.properties} are taken", at)
                made[keyword] = {name: self._schema(part, f"{at}/{escape(name)}") for name, part in names.items()}
            case "required":
                made[keyword] = _texts(value, at)
            case "type":
                made[keyword] = _types(value, at)
            case "enum":
                made[keyword] = _exact(_typed(value, list, at), at)
                if not value:
                    raise _error("The enum is empty: no value satisfies it", at)
            case "const":
                made[keyword] = _exact(value, at)
            case "format":
                self._format(value, at, schema, made)
            case "pattern":
                made[keyword] = _typed(value, str, at)
            case "exclusiveMinimum" | "exclusiveMaximum" if isinstance(value, bool):  # draft 4
                made[keyword] = value
            case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
                tighter = max if "Min" in keyword or keyword == "minimum" else min
                made[keyword] = tighter(_number(value, at), made.get(keyword, _number(value, at)))
            case "multipleOf":
                made[keyword] = self._divisor(_number(value, at), at)
            case _:
                made[keyword] = _count(value, at)

    def _schemas(self, value: Any, at: str) -> list[dict[str, Any] | bool]:
        members = _typed(value, list, at)
        if not members:
            raise _error("At least one schema is due", at)
        return [self._schema(member, f"{at}/{place}") for place, member in enumerate(members)]

    def _reference(self, value: Any, at: str) -> str:
        pointer, target = self._references.find(_typed(value, str, at), at)
        if pointer == "":
            return "#"
        if pointer not in self._names:
            self._names[pointer] = str(len(self._names))
            self._pending.append((pointer, target))
        self._combined = True
        return f"#/$defs/{self._names[pointer]}"

    def _one_of(self, value: Any, at: str, schema: Mapping[str, Any], made: dict[str, Any]) -> None:
        self._combined = True
        members = self._schemas(value, at)
        pairs = ((left, right) for place, left in enumerate(value) for right in value[:place])
        if not all(disjoint(left, right, self._references) for left, right in pairs):
            made["oneOf"] = members
        elif "anyOf" in schema:
            made.setdefault("allOf", []).append({"anyOf": members})
        else:
            made["anyOf"] = members

    def _format(self, value: Any, at: str, schema: Mapping[str, Any], made: dict[str, Any]) -> None:
        name = _typed(value, str, at)
        if name in OWN_FORMATS and "pattern" in schema:
            made.setdefault("allOf", []).append({"pattern": OWN_FORMATS[name]})
        elif name in OWN_FORMATS:
            made["pattern"] = OWN_FORMATS[name]
        elif name in FORMATS:
            made["format"] = name
        elif name in NUMBER_FORMATS:
            for bound, limit in NUMBER_FORMATS[name].items():
                tighter = max if bound == "minimum" else min
                made[bound] = tighter(limit, made.get(bound, limit))
        else:
            raise _error(
                f'The format "{name}" cannot be enforced while decoding', at, f"there are {', '.join(sorted(FORMATS))}"
            )

    def _divisor(self, value: int | float, at: str) -> int | float:
        if value <= 0:
            raise _error("multipleOf must be above 0", at)
        parts = Decimal(repr(value)).normalize().as_tuple()
        coefficient = int("".join(map(str, parts.digits)))
        # The automaton counts in units of the last decimal place.
        self._divisors.append((coefficient * 10 ** min(max(0, int(parts.exponent)), 20), at))
        return value

    def _check_divisors(self) -> None:
        # Where schemas are intersected llguidance takes the least common multiple of their divisors.
        divisors = [divisor for divisor, _ in self._divisors]
        size = max(sum(divisors), math.lcm(*divisors) if self._combined else 0)
        if size > LIMITS.remainders:
            what = f'The keyword "multipleOf" cannot be enforced: the divisors of the schema come to {size}'
            fix = "leave it out, and check the parsed value"
            raise _error(f"{what}; at most {LIMITS.remainders} is taken", max(self._divisors)[1], fix)


def _error(what: str, at: str, fix: str | None = None) -> RequestError:
    return RequestError(f"{what}.", where=f"#{at}", fix=fix)


def _typed(value: Any, kind: type, at: str) -> Any:
    if not isinstance(value, kind):
        name = "an object" if kind is dict else "a list" if kind is list else "a text"
        raise _error(f"{shown(value)} stands where {name} is due", at)
    return value


def _texts(value: Any, at: str) -> list[str]:
    return [_typed(member, str, f"{at}/{place}") for place, member in enumerate(_typed(value, list, at))]


def _types(value: Any, at: str) -> str | Sequence[str]:
    names = [value] if isinstance(value, str) else _texts(value, at)
    for name in names:
        if name not in TYPES:
            raise _error(f'There is no type "{name}"', at, f"the types are {', '.join(TYPES)}")
    if not names:
        raise _error("The list of types is empty: no value satisfies it", at)
    return value if isinstance(value, str) else names


def _number(value: Any, at: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _error(f"{shown(value)} stands where a number is due", at)
    return _exact(value, at)  # type: ignore[no-any-return]


def _count(value: Any, at: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise _error(f"{shown(value)} stands where a whole number from 0 to {(1 << 31) - 1} is due", at)
    return value


def _exact(value: Any, at: str) -> Any:
    """A value for llguidance, which holds numbers as float64: others would silently become their neighbours."""
    if isinstance(value, dict):
        return {name: _exact(member, f"{at}/{escape(name)}") for name, member in value.items()}
    if isinstance(value, list):
        return [_exact(member, f"{at}/{place}") for place, member in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise _error("The number is not finite", at)
    if isinstance(value, int) and (abs(value) > 1 << 63 or int(float(value)) != value):
        raise _error(f"The number {shown(value)} has no exact float64", at)
    return value
