"""Whether two schemas provably share no valid value, so that a `oneOf` of them is an `anyOf`.

llguidance has such a proof too, but not through references, as in the discriminated unions that pydantic writes.
"""

from collections.abc import Mapping
from typing import Any

from bestiary.generation.constraints.keywords import TYPES
from bestiary.generation.constraints.pointers import References

_DEPTH = 8


def disjoint(left: Any, right: Any, references: References, depth: int = 0) -> bool:
    """True only where it is certain: by type, by their lists of values, or by a property that tells them apart."""
    if left is False or right is False:
        return True
    if depth > _DEPTH or not isinstance(left, dict) or not isinstance(right, dict):
        return False
    left, right = _followed(left, references), _followed(right, references)
    shared = _types(left) & _types(right)
    if not shared:
        return True
    values = _values(left), _values(right)
    if values[0] is not None and values[1] is not None:
        return not values[0] & values[1]
    if shared != {"object"}:
        return False
    parts = _mapping(left, "properties"), _mapping(right, "properties")
    telling = set(parts[0]) & set(parts[1]) & {*_needed(left), *_needed(right)}
    return any(disjoint(parts[0][name], parts[1][name], references, depth + 1) for name in telling)


def _followed(schema: dict[str, Any], references: References) -> dict[str, Any]:
    """The schema that a chain of references ends at, together with the keywords beside the references."""
    whole = dict(schema)
    for _ in range(_DEPTH):
        reference = whole.pop("$ref", None)
        if not isinstance(reference, str):
            break
        _, target = references.find(reference, "")
        if not isinstance(target, dict):
            break
        whole = {**target, **whole}  # keywords of both: either set of them is a sound ground for a proof
    return whole


def _types(schema: Mapping[str, Any]) -> set[str]:
    stated = schema.get("type", list(TYPES))
    names = {stated} if isinstance(stated, str) else {name for name in stated if isinstance(name, str)}
    names = {"integer" if name == "number" else name for name in names}  # they share values
    values = _values(schema)
    return names if values is None else names & {kind for kind, _ in values}


def _values(schema: Mapping[str, Any]) -> set[tuple[str, Any]] | None:
    """The plain values of a `const` or `enum` with their types; None where there is neither, or one is compound."""
    if "const" in schema:
        members = [schema["const"]]
    elif isinstance(schema.get("enum"), list):
        members = schema["enum"]
    else:
        return None
    if any(isinstance(member, dict | list) for member in members):
        return None
    return {(_kind(member), member) for member in members}


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "integer"  # of any number, as 1 equals 1.0


def _mapping(schema: Mapping[str, Any], keyword: str) -> Mapping[str, Any]:
    value = schema.get(keyword)
    return value if isinstance(value, dict) else {}


def _needed(schema: Mapping[str, Any]) -> list[str]:
    value = schema.get("required")
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
