"""The media of a chat, found in its messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bestiary.errors import RequestError, shown

Source = tuple[str, Any]
"""A kind ("image", "video", "audio"), and whatever `bestiary.media.opening` opens."""

_KINDS = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "video": "video",
    "video_url": "video",
    "input_video": "video",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
}
"""By `type` of a part: those of transformers, OpenAI's two APIs, and Anthropic's."""
_FIELDS = ("url", "path", "base64", "data", "source", "file", "frames")


def without_media(messages: Any) -> tuple[Any, list[Source]]:
    """The messages with {"type": kind} in place of each medium, as chat templates ask for it, and the media in order.

    What is no list of messages stays as it is.  Raises RequestError for a part that names a medium and has none.
    """
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        return messages, []
    found: list[Source] = []
    made = []
    for place, message in enumerate(messages):
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, list | tuple) and any(_kind(part) for part in content):
            parts = [_taken(part, f"messages/{place}/content/{number}", found) for number, part in enumerate(content)]
            message = {**message, "content": parts}
        made.append(message)
    return made, found


def _kind(part: Any) -> str | None:
    if not isinstance(part, Mapping):
        return None
    stated = part.get("type")
    if isinstance(stated, str):
        return _KINDS.get(stated)
    return next((kind for kind in ("image", "video", "audio") if kind in part), None)


def _taken(part: Any, where: str, found: list[Source]) -> Any:
    kind = _kind(part)
    if kind is None:
        return part
    names = (f"{kind}_url", kind, f"input_{kind}", *_FIELDS)
    value = next((part[name] for name in names if part.get(name) is not None), None)
    source = _source(value)
    if source is None:
        raise RequestError(
            f"The part {shown(dict(part))} has no {kind}.", where=where, fix=f'give {{"type": "{kind}", "{kind}": ...}}'
        )
    if kind == "video" and part.get("fps") is not None and not isinstance(source, Mapping):
        source = {"frames": source, "fps": part["fps"]}
    found.append((kind, source))
    return {"type": kind}


def _source(value: Any) -> Any:
    """What is to be opened: itself, or what OpenAI's {"url"} and Anthropic's {"type", "media_type", "data"} hold."""
    if not isinstance(value, Mapping) or "frames" in value:
        return value
    if value.get("data") is not None:
        kind = value.get("media_type") or value.get("format") or "application/octet-stream"
        return f"data:{kind};base64,{value['data']}" if isinstance(value["data"], str) else value["data"]
    return next((value[name] for name in ("url", "path", "file") if value.get(name) is not None), None)
