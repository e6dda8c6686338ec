"""From Python types to JSON schemas."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import types
import typing
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from bestiary.errors import RequestError, shown

_PLAIN: Mapping[Any, Mapping[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    None: {"type": "null"},
    types.NoneType: {"type": "null"},
    Any: {},
    object: {},
    list: {"type": "array"},
    dict: {"type": "object"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.time: {"type": "string", "format": "time"},
    uuid.UUID: {"type": "string", "format": "uuid"},
}


def is_type(value: object) -> bool:
    """Whether a value is a type, and not a schema: a class, or an annotation such as list[int] or int | None."""
    return isinstance(value, type) or value is Any or typing.get_origin(value) is not None


def is_pydantic(value: object) -> bool:
    """Whether a value is a model class of pydantic, or one that offers the same two methods."""
    return isinstance(value, type) and callable(getattr(value, "model_json_schema", None))


def schema_of(kind: Any) -> dict[str, Any]:
    """The schema of a type.

    Knows pydantic's models, dataclasses, enumerations, Literal, unions, list, tuple, dict with names of str, datetime,
    date, time and UUID.  Fields with a default may be left out by the model, and no other names may come.
    RequestError names the field of which the type has no schema.
    """
    if is_pydantic(kind):
        return dict(kind.model_json_schema())
    definitions: dict[str, Any] = {}
    schema = _Conversion(definitions).schema(kind, _name(kind))
    return {**schema, "$defs": definitions} if definitions else schema


class _Conversion:
    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self._names: dict[type, str] = {}

    def schema(self, kind: Any, at: str) -> dict[str, Any]:
        if isinstance(kind, typing.NewType):
            return self.schema(kind.__supertype__, at)
        try:
            plain = _PLAIN.get(kind)
        except TypeError:  # an annotation that has no hash
            plain = None
        if plain is not None:
            return dict(plain)
        if isinstance(kind, type) and typing.get_origin(kind) is None:
            return self._class(kind, at)
        return self._annotation(kind, at)

    def _class(self, kind: type, at: str) -> dict[str, Any]:
        if is_pydantic(kind):
            raise RequestError("A pydantic model inside of another type has no schema here.", where=at)
        if issubclass(kind, enum.Enum):
            return {"enum": _plain_values([member.value for member in kind], at)}
        if not dataclasses.is_dataclass(kind):
            raise _no_schema(kind, at)
        if kind not in self._names:
            name = kind.__name__ if kind.__name__ not in self._definitions else f"{kind.__module__}.{kind.__qualname__}"
            self._names[kind] = name
            self._definitions[name] = {}  # reserved, as a type may contain itself
            self._definitions[name] = self._dataclass(kind, _name(kind))
        return {"$ref": f"#/$defs/{self._names[kind].replace('~', '~0').replace('/', '~1')}"}

    def _dataclass(self, kind: type, at: str) -> dict[str, Any]:
        hints = hints_of(kind)
        fields = [field for field in dataclasses.fields(kind) if field.init]
        missing = dataclasses.MISSING
        return {
            "type": "object",
            "properties": {field.name: self.schema(hints[field.name], f"{at}.{field.name}") for field in fields},
            "required": [
                field.name for field in fields if field.default is missing and field.default_factory is missing
            ],
            "additionalProperties": False,
        }

    def _annotation(self, kind: Any, at: str) -> dict[str, Any]:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self.schema(member, at) for member in arguments]}
        if origin is typing.Literal:
            return {"enum": _plain_values(arguments, at)}
        if origin is list or origin is Sequence:
            return {"type": "array", "items": self.schema(arguments[0], at)}
        if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", "items": self.schema(arguments[0], at)}
        if origin is tuple:
            count = len(arguments)
            members = [self.schema(member, at) for member in arguments]
            items = {"prefixItems": members} if members else {}
            return {"type": "array", **items, "items": False, "minItems": count, "maxItems": count}
        if origin in (dict, Mapping) and arguments[0] is str:
            return {"type": "object", "additionalProperties": self.schema(arguments[1], at)}
        raise _no_schema(kind, at)


def hints_of(kind: type) -> Mapping[str, Any]:
    """The types of the fields of a dataclass, those that are written as texts resolved."""
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError, AttributeError) as error:
        raise RequestError(f"The fields of {kind.__name__} have types that cannot be resolved: {error}") from error


def _plain_values(values: Sequence[Any], at: str) -> list[Any]:
    for value in values:
        if value is not None and not isinstance(value, str | bool | int | float):
            raise RequestError(f"{shown(value)} is no JSON value.", where=at)
    return [value.value if isinstance(value, enum.Enum) else value for value in values]


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)


def _no_schema(kind: Any, at: str) -> RequestError:
    known = "dataclasses, enumerations, Literal, unions, list, tuple, dict[str, ...], str, int, float, bool and None do"
    return RequestError(f"The type {_name(kind)} has no JSON schema here.", where=at, fix=known)
