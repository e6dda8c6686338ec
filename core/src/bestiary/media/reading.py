"""The bytes behind a source: a path, a URL, a data URL, bytes or an open file; never more than the limit."""

from __future__ import annotations

import binascii
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from bestiary.errors import MediaError
from bestiary.media.fetching import fetch
from bestiary.media.limits import MediaLimits

_PIECE = 1 << 20
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)  # of two letters or more: C: is a drive of Windows
_SPACE = re.compile(r"[ \t\r\n]+")


def read(source: Any, limits: MediaLimits, deadline: float) -> tuple[bytes, str]:
    """The bytes, and what error messages call their source.

    The deadline is of time.monotonic, for what is fetched.  Raises MediaError.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        size = source.nbytes if isinstance(source, memoryview) else len(source)
        if size > limits.bytes:
            raise _too_large(limits, "bytes")
        return source if isinstance(source, bytes) else bytes(source), "bytes"
    if isinstance(source, os.PathLike):
        return _file(os.fspath(source), limits)
    if isinstance(source, str):
        return _named(source, limits, deadline)
    if hasattr(source, "read"):
        return _drained(source, limits), "an open file"
    raise MediaError(
        f"A source of type {type(source).__name__} is not taken.",
        fix="give a path, a URL, bytes, an open file, a NumPy array or a PIL picture",
    )


def _named(source: str, limits: MediaLimits, deadline: float) -> tuple[bytes, str]:
    found = _SCHEME.match(source)
    scheme = found[1].lower() if found else ""
    if scheme == "data":
        return _data_url(source, limits), "a data URL"
    if scheme in ("http", "https"):
        return fetch(source, limits, deadline=deadline), brief(source)
    if scheme == "file":
        return _file(_path_of(source), limits)
    if scheme and "://" in source[:64]:
        fix = "give an http(s) URL, a data URL or a path"
        raise MediaError(f"URLs of {scheme} are not opened.", where=brief(source), fix=fix)
    return _file(source, limits)


def _data_url(source: str, limits: MediaLimits) -> bytes:
    """The media type is not asked: the bytes tell what they are."""
    where = "a data URL"
    head, comma, payload = source.partition(",")
    if not comma or not head.lower().rstrip().endswith(";base64"):
        what = "The data URL does not say that it is base64."
        raise MediaError(what, where=where, fix="write it as data:image/png;base64,iVBORw0...")
    # Blanks are rare, and would count: a text of twice the length is none that decodes to the limit.
    if len(payload) > 8 * limits.bytes // 3 + 4:
        raise _too_large(limits, where)
    payload = _SPACE.sub("", payload)
    if (len(payload) - payload[-2:].count("=")) * 3 // 4 > limits.bytes:
        raise _too_large(limits, where)
    try:
        return binascii.a2b_base64(payload + "=" * (-len(payload) % 4), strict_mode=True)
    except ValueError as error:  # binascii.Error too, and it quotes nothing
        fix = "encode the file anew, with the standard alphabet"
        raise MediaError(f"The base64 of the data URL is damaged: {error}.", where=where, fix=fix) from error


def _path_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.netloc.lower() not in ("", "localhost"):
            raise MediaError("A file:// URL names another machine.", where=brief(url), fix="write file:///path")
        return url2pathname(parts.path) if os.name == "nt" else unquote(parts.path)
    except ValueError as error:
        raise MediaError(f"The URL is malformed: {error}.", where=brief(url)) from error


def _file(path: str | bytes, limits: MediaLimits) -> tuple[bytes, str]:
    # Whether there is such a file is not told to those who may not open it.
    if not limits.local:
        raise MediaError(
            "Files of this machine are not opened here.",
            where=brief(path),
            fix="send the picture itself, as a data URL: data:image/png;base64,...",
        )
    try:
        place = Path(os.fsdecode(path)).expanduser()
        # Not blocking, or a named pipe would wait for its writer before it can be refused.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        with os.fdopen(os.open(place, flags), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise MediaError("The path is of no regular file.", where=brief(path))
            if status.st_size > limits.bytes:
                raise _too_large(limits, brief(path))
            return _drained(file, limits, brief(path)), brief(path)
    except (OSError, ValueError, RuntimeError) as error:  # a zero byte is a ValueError, no home a RuntimeError
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        fix = "check the path; base64 is written as a data URL: data:image/png;base64,..."
        raise MediaError(f"The file cannot be opened: {reason}.", where=brief(path), fix=fix) from error


def _drained(file: Any, limits: MediaLimits, where: str = "an open file") -> bytes:
    """All of a file from its start, as Pillow takes it; of a stream without a start, the rest."""
    made = bytearray()
    try:
        with suppress(OSError, AttributeError):  # io.UnsupportedOperation is an OSError
            file.seek(0)
        while piece := file.read(min(_PIECE, limits.bytes + 1 - len(made))):
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise MediaError("The file was opened as text.", where=where, fix='open it with mode "rb"')
            made += piece
            if len(made) > limits.bytes:
                raise _too_large(limits, where)
    except (OSError, ValueError) as error:  # ValueError: a closed file
        raise MediaError(f"The file cannot be read: {error}.", where=where) from error
    return bytes(made)


def _too_large(limits: MediaLimits, where: str) -> MediaError:
    what = f"The source has more than {limits.bytes} bytes."
    return MediaError(what, where=where, fix="make it smaller, or raise the limit `bytes`")


def brief(source: str | bytes) -> str:
    """A path or a URL as a message shows it."""
    text = os.fsdecode(source)
    return text if len(text) <= 200 else f"{text[:200]}..."
