"""Texts as Dia reads them: the bytes of UTF-8, of which two stand for the tags of the speakers."""

from __future__ import annotations

from bestiary.errors import RequestError

TAGS = {b"[S1]": b"\x01", b"[S2]": b"\x02"}


def encode(text: str, most: int) -> list[int]:
    """A text without tags is said by the first speaker.  Raises RequestError where it is longer than `most` bytes."""
    data = text.encode("utf-8", "replace")
    if not any(tag in data for tag in TAGS):
        data = b"[S1] " + data
    for tag, byte in TAGS.items():
        data = data.replace(tag, byte)
    if len(data) > most:
        raise RequestError(
            f"The text has {len(data)} bytes; the model reads {most}.",
            fix="split it into several texts, with the sound of the first as the audio_prompt of the next",
        )
    return list(data)


def with_voice(said: str, text: str) -> str:
    """What is said in a recording, and what is to be said after it."""
    return f"{said.strip()} {text}" if said.strip() else text
