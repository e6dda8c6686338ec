"""Pictures that a line of a conversation names: terminals write the path of a file that is dragged onto them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"))
_WORD = re.compile(r"""'([^']*)'|"([^"]*)"|((?:\\.|[^\s\\])+)""")


def attached(line: str) -> tuple[str, list[Path]]:
    """The line without the paths of pictures that exist, and these; quoted, escaped or as file:// URLs."""
    found: list[Path] = []

    def taken(word: re.Match[str]) -> str:
        single, double, bare = word.groups()
        text = single or double or re.sub(r"\\(.)", r"\1", bare or "")
        path = Path(unquote(urlsplit(text).path) if text.startswith("file://") else text)
        if path.suffix.lower() not in PICTURES:
            return word.group()
        try:
            path = path.expanduser()
            if not path.is_file():
                return word.group()
        except (OSError, RuntimeError, ValueError):  # a name that no file can have
            return word.group()
        found.append(path)
        return ""

    text = _WORD.sub(taken, line)
    return (" ".join(text.split()) if found else line), found


def question(text: str, pictures: Sequence[Any], videos: Sequence[Any] = ()) -> str | list[dict[str, Any]]:
    """The content of a user's message: media first, as models are trained."""
    media = [("image", source) for source in pictures] + [("video", source) for source in videos]
    if not media:
        return text
    parts: list[dict[str, Any]] = [{"type": kind, kind: source} for kind, source in media]
    return [*parts, {"type": "text", "text": text}] if text else parts
