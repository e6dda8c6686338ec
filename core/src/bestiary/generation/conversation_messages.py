"""Messages with calls of tools and their results, as chat templates take them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from bestiary.errors import RequestError, shown
from bestiary.generation.tools.events import Message, ToolCall


def with_calls(messages: Any) -> Any:
    """Copies in which calls are {"type": "function", "function": {"name", "arguments"}}, with their ids.

    Takes calls and whole answers as `generation.tools.events` has them, too.  Arguments that are the JSON text of an
    object become the object, as templates that look into them need it; other texts stay.  A result of a tool gets the
    name of the tool that its id belongs to, where it has none.  What is no list of messages stays as it is.
    """
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        return messages
    names: dict[Any, str] = {}
    made: list[Any] = []
    for place, message in enumerate(messages):
        if isinstance(message, Message):
            message = _of_answer(message)
        if isinstance(message, Mapping) and message.get("tool_calls"):
            calls = _calls(message["tool_calls"], f"messages/{place}/tool_calls")
            names |= {call["id"]: call["function"]["name"] for call in calls if isinstance(call.get("id"), str)}
            message = {**message, "tool_calls": calls}
        elif isinstance(message, Mapping) and message.get("role") == "tool" and message.get("name") is None:
            id = message.get("tool_call_id")
            if isinstance(id, str) and id in names:
                message = {**message, "name": names[id]}
        made.append(message)
    return made


def texts_of(messages: Any) -> list[str]:
    """The contents that are texts by themselves, without blanks around them."""
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        return []
    found = [message.get("content") for message in messages if isinstance(message, Mapping)]
    return [text.strip() for text in found if isinstance(text, str) and text.strip()]


def as_parts(messages: Sequence[Any]) -> list[Any]:
    """The messages with each content that is a text as a list of one part."""
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message, Mapping) and isinstance(message.get("content"), str)
        else message
        for message in messages
    ]


def variants(messages: Sequence[Any]) -> Iterator[list[Any]]:
    """The messages, and then what other templates need instead.

    First those that add something to the content of a call's message, which may have none, and then those that add the
    arguments to a text, which must be one themselves.
    """
    yield list(messages)
    yield [_with_content(message) for message in messages]
    texts = [_with_texts(message) for message in messages]
    yield texts
    yield [_with_content(message) for message in texts]


def has_calls(messages: Any) -> bool:
    """Whether any message has calls."""
    return isinstance(messages, list) and any(_has_calls(message) for message in messages)


def printed_as_python(text: str, messages: Sequence[Any]) -> bool:
    """Whether a template printed the arguments of a call as Python does, with single quotes: it needs a text there."""
    arguments = [call["function"]["arguments"] for message in messages for call in _of(message)]
    return any(isinstance(value, dict) and value and str(value) in text for value in arguments)


def _has_calls(message: Any) -> bool:
    return isinstance(message, Mapping) and bool(message.get("tool_calls"))


def _of(message: Any) -> Sequence[Mapping[str, Any]]:
    calls: Sequence[Mapping[str, Any]] = message["tool_calls"] if _has_calls(message) else ()
    return calls


def _with_content(message: Any) -> Any:
    return {**message, "content": ""} if _has_calls(message) and message.get("content") is None else message


def _with_texts(message: Any) -> Any:
    return {**message, "tool_calls": [_with_text(call) for call in _of(message)]} if _has_calls(message) else message


def _with_text(call: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments = call["function"]["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
    return {**call, "function": {**call["function"], "arguments": text}}


def _of_answer(answer: Message) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.content}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = list(answer.tool_calls)
    return message


def _calls(calls: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(calls, str | Mapping) or not isinstance(calls, Sequence):
        raise RequestError(f"The calls of a message are a list, not {shown(calls)}.", where=where)
    return [_call(call, f"{where}/{place}") for place, call in enumerate(calls)]


def _call(call: Any, where: str) -> dict[str, Any]:
    if isinstance(call, ToolCall):
        call = {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
    if not isinstance(call, Mapping):
        raise RequestError(f"A call is an object, not {shown(call)}.", where=where)
    function = call.get("function", call)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RequestError("A call has no function with a name.", where=where)
    more = {} if function is call else function
    inner = {**more, "name": function["name"], "arguments": _arguments(function.get("arguments"), where)}
    outer = {key: value for key, value in call.items() if value is not None and key not in ("name", "arguments")}
    return {**outer, "type": "function", "function": inner}


def _arguments(arguments: Any, where: str) -> dict[str, Any] | str:
    if arguments is None or arguments == "":
        return {}
    if isinstance(arguments, Mapping):
        return dict(arguments)
    if not isinstance(arguments, str):
        raise RequestError(f"The arguments of a call are an object or its text, not {shown(arguments)}.", where=where)
    try:
        value = json.loads(arguments, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
