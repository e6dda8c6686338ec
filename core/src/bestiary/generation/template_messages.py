"""Messages as a chat template gets them: copies made of JSON values."""

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from bestiary.errors import RequestError
from bestiary.generation.template_worker import Rendered

_REASONING = ("reasoning_content", "thinking", "reasoning")  # Names under which messages carry it, the usual one first.


def _plain(value: Any) -> Any:
    """A copy of JSON values only.  What a template has no business with (an image) becomes "<Image>", so that templates
    can still ask whether it is there."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value) if type(value) is not kind else value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise RequestError(f"The keys of a message must be texts: {[key for key in value if type(key) is not str]}")
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)):
        return _plain(dump())
    if callable(item := getattr(value, "item", None)) and getattr(value, "shape", None) == ():
        return _plain(item())
    return f"<{type(value).__name__}>"


def plain_objects(name: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    try:
        plain = [_plain(value) for value in values]
    except (RecursionError, TypeError) as error:
        raise RequestError(f"The {name} are not a list of JSON objects: {error}") from error
    for value in plain:
        if not isinstance(value, dict):
            raise RequestError(f"The {name} must be JSON objects, not {value!r:.100}")
    return plain


def plain_messages(messages: Sequence[Any]) -> list[dict[str, Any]]:
    """Copies of the messages, as transformers hands them to a template: without keys whose value is None (templates
    print them as "None"), and with the reasoning under every name that templates read."""
    chat = [
        {key: value for key, value in each.items() if value is not None} for each in plain_objects("messages", messages)
    ]
    if not chat:
        raise RequestError("There are no messages")
    for place, message in enumerate(chat):
        reasoning = next((message[key] for key in _REASONING if key in message), None)
        if reasoning is not None:
            chat[place] = {"thinking": reasoning, **message, "reasoning_content": reasoning}
    return chat


class OpenMessage:
    """The last message left open: a mark is written after its text, and what the template puts behind it is cut off."""

    def __init__(self, chat: list[dict[str, Any]], wanted: bool | str, jinja: str) -> None:
        """Writes the mark into the last message of `chat`, into the field that `wanted` names."""
        self._mark = f"continue{secrets.token_hex(8)}"
        field = wanted if isinstance(wanted, str) else "content"
        message = chat[-1]
        value = message.get(field)
        if value is None:
            raise RequestError(f"The last message has no {field!r} to continue")
        fields = [name for name in _REASONING if message.get(name) == value] if field in _REASONING else [field]
        if not any(name in jinja for name in fields):
            raise RequestError(f"The chat template does not use {field!r}, so it cannot be continued")
        if isinstance(value, list):
            block = next((block for block in reversed(value) if isinstance(block, dict) and "text" in block), None)
            if block is None:
                raise RequestError("The last message has no text to continue")
            self._text = str(block["text"])
            block["text"] = f"{self._text}{self._mark} "
        elif isinstance(value, str):
            self._text = value
            message |= dict.fromkeys(fields, f"{value}{self._mark} ")
        else:
            raise RequestError(f"The {field!r} of the last message is not a text")

    def cut(self, rendered: Rendered) -> Rendered:
        """RequestError where the template leaves the message out or changes it."""
        place = rendered.text.rfind(self._mark)
        if place < 0 or self._text.strip() not in rendered.text:
            raise RequestError("The chat template leaves the last message out or changes it, so it cannot be continued")
        text = rendered.text[:place]
        behind = place + len(self._mark)
        if rendered.text[behind : behind + 1] != " ":
            text = text.rstrip()  # The template trims messages; it would have trimmed this one without the mark too.
        spans = tuple((begin, min(end, len(text))) for begin, end in rendered.spans if begin < len(text))
        return Rendered(text, spans)
