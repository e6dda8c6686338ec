"""The files that a command line names: those to open, and those to write."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bestiary.errors import OptionError
from bestiary.nearest import did_you_mean

ENDINGS = {
    "a picture": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"),
    "a sound": (".wav", ".flac", ".ogg", ".opus", ".mp3"),
    "a transcript": (".txt", ".srt", ".vtt", ".json"),
}
_URL = re.compile(r"(data|file|https?):|[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def check_inputs(sources: Iterable[str]) -> None:
    """Raises OptionError for a path at which nothing is; URLs are left to those who open them."""
    for source in sources:
        with suppress(OSError, ValueError, RuntimeError):  # a name that no file can have: who opens it says why
            if not _URL.match(source) and not Path(source).expanduser().exists():
                raise OptionError(f"There is no file {source}.", fix="check the path")


def check_output(output: str, *kinds: str) -> None:
    """Raises OptionError for a file that could not be written as any of the kinds (keys of `ENDINGS`)."""
    path = Path(output).expanduser()
    known, ending = [each for kind in kinds for each in ENDINGS[kind]], _ending(path)
    if ending not in known:
        fix = did_you_mean(ending, known) or f"it ends in one of {', '.join(known)}"
        raise OptionError(f"{output} has no ending of {' or '.join(kinds)}.", fix=fix)
    if not path.parent.is_dir():
        raise OptionError(f"There is no folder {path.parent}.", fix="make it, or choose another place")
    if path.is_dir():
        raise OptionError(f"{output} is a folder.", fix="name a file in it")


def destination(output: str | None, name: str, ending: str, number: int = 1, count: int = 1) -> Path:
    """Where the `number`-th of `count` results goes: `output`, numbered where there are several.

    Without it the place is called `name`, with `ending`; so too where `output` is an ending alone (".flac"), which then
    is the ending.  What a user did not name is not written over.
    """
    if output is None:
        return _unused(Path(name + ending))
    path = Path(output).expanduser()
    if not path.suffix:
        return _unused(path.with_name(name + path.name))
    return path if count == 1 else path.with_stem(f"{path.stem}-{number}")


def words_of(text: str, otherwise: str) -> str:
    """The beginning of a text as the name of a file."""
    return "-".join(re.findall(r"\w+", text.lower()))[:60].rstrip("-") or otherwise


def name_of(source: str, otherwise: str) -> str:
    """The name of a file that is a path or a URL, without its ending."""
    if source[:5].lower() == "data:":
        return otherwise
    return Path(unquote(urlsplit(source).path) if _URL.match(source) else source).stem or otherwise


def _ending(path: Path) -> str:
    return (path.suffix or path.name).lower()


def _unused(path: Path) -> Path:
    """A name that no file has."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found
