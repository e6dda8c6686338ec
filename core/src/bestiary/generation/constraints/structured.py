"""From the text of an answer back to a typed object."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bestiary.errors import GenerationError, shown
from bestiary.generation.constraints.type_schema import hints_of, is_pydantic

_READERS: Mapping[Any, Callable[[str], Any]] = {
    datetime.datetime: lambda text: datetime.datetime.fromisoformat(text.upper()),
    datetime.date: lambda text: datetime.date.fromisoformat(text),
    datetime.time: lambda text: datetime.time.fromisoformat(text.upper()),
    uuid.UUID: lambda text: uuid.UUID(text),
}


def parse(text: str, kind: Any = dict) -> Any:
    """A JSON text as a pydantic model, a dataclass, or whatever type `json_schema` makes a schema of.

    A schema, or None, stands for plain JSON.  GenerationError where the text is cut off, or no value of the type.
    """
    if is_pydantic(kind):
        try:
            return kind.model_validate_json(text)
        except ValueError as error:  # pydantic's ValidationError is one
            raise GenerationError(f"The answer is no {kind.__name__}: {error}", fix=_CUT) from error
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise GenerationError("The answer is nested too deeply to be read.") from None
    except ValueError as error:
        place = f"character {error.pos} of {len(text)}" if isinstance(error, json.JSONDecodeError) else None
        raise GenerationError(f"The answer is not JSON: {error}", where=place, fix=_CUT) from error
    return value if kind is None or isinstance(kind, Mapping | bool | str) else _build(value, kind, "#")


_CUT = 'an answer that ended with finish_reason "length" was cut off: raise max_tokens'


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _build(value: Any, kind: Any, at: str) -> Any:
    if isinstance(kind, typing.NewType):
        return _build(value, kind.__supertype__, at)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _first(value, arguments, at)
    if origin is typing.Literal:
        for member in arguments:
            plain = member.value if isinstance(member, enum.Enum) else member
            if _same(value, plain):
                return member
        raise _wrong(value, kind, at)
    if kind is list or origin in (list, Sequence, tuple):
        return _sequence(value, origin, arguments, kind, at)
    if kind is dict or origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _wrong(value, kind, at)
        inner = arguments[1] if arguments else Any
        return {name: _build(member, inner, f"{at}/{name}") for name, member in value.items()}
    return _plain(value, kind, at)


def _plain(value: Any, kind: Any, at: str) -> Any:
    if kind is Any or kind is object:
        return value
    if kind is None or kind is types.NoneType:
        if value is None:
            return None
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif kind in (str, int, bool):
        if type(value) is kind:
            return value
    elif kind in _READERS and isinstance(value, str):
        try:
            return _READERS[kind](value)
        except ValueError as error:
            raise GenerationError(f"{shown(value)} is no {kind.__name__}: {error}", where=at) from error
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        for member in kind:
            if _same(value, member.value):
                return member
    elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(value, kind, at)
    raise _wrong(value, kind, at)


def _dataclass(value: Any, kind: type, at: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(value, kind, at)
    hints = hints_of(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for name in value:
        if name not in fields:
            raise GenerationError(f'{kind.__name__} has no field "{name}".', where=at)
    made = {name: _build(inner, hints[name], f"{at}/{name}") for name, inner in value.items()}
    try:
        return kind(**made)
    except (TypeError, ValueError) as error:
        raise GenerationError(f"The answer makes no {kind.__name__}: {error}", where=at) from error


def _sequence(value: Any, origin: Any, arguments: tuple[Any, ...], kind: Any, at: str) -> Any:
    if not isinstance(value, list):
        raise _wrong(value, kind, at)
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        if len(value) != len(arguments):
            raise _wrong(value, kind, at)
        return tuple(_build(member, arguments[place], f"{at}/{place}") for place, member in enumerate(value))
    inner = arguments[0] if arguments else Any
    members = [_build(member, inner, f"{at}/{place}") for place, member in enumerate(value)]
    return tuple(members) if origin is tuple else members


def _first(value: Any, kinds: Sequence[Any], at: str) -> Any:
    """The value as the first type that takes it; int before float, as 1 is both."""
    for kind in sorted(kinds, key=lambda kind: kind is float):
        try:
            return _build(value, kind, at)
        except GenerationError:
            continue
    raise _wrong(value, " | ".join(getattr(kind, "__name__", str(kind)) for kind in kinds), at)


def _same(value: Any, member: Any) -> bool:
    return isinstance(value, bool) == isinstance(member, bool) and bool(value == member)


def _wrong(value: Any, kind: Any, at: str) -> GenerationError:
    name = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    return GenerationError(f"{shown(value)} stands where {name} is due.", where=at)
