"""What a file name, a hub id and a revision may look like, before any of them touches a path or an address.

A name may come from a user, a hub's listing or the index of a checkpoint; all three are input.
"""

import re
import unicodedata

from bestiary.errors import UnsafeName

MAX_NAME = 1024
"""Characters of a whole file name; a part of it may have 255 bytes, the limit of common file systems."""

_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+#@=,/-]{0,254}")
# Characters that make a name look like another one on a screen: bidirectional controls and line separators.
_DECEPTIVE = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def check_name(name: str, where: object = None) -> str:
    """`name`, if it is a relative path with forward slashes that stays in its folder.  Raises UnsafeName."""
    if reason := name_fault(name):
        raise UnsafeName(
            f"The file name {_shown(name)} {reason}.",
            where=where,
            fix="names are relative to the model's folder, with forward slashes; do not load a model that names others",
        )
    return name


def hub_id(id: str) -> str | None:
    """`name` or `org/name` of a hub id, without its optional `hf://`; None where the form is another."""
    repository = id.removeprefix("hf://")
    segments = repository.split("/")
    if len(segments) > 2 or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        return None
    # The cache spells "/" as "--", so an id with "--" in it would share the folder of another one.
    if "--" in repository or ".." in repository or repository.endswith(".git"):
        return None
    return repository


def check_revision(revision: str) -> str:
    """`revision`, if it can be a branch, a tag or a commit: it becomes a path below `refs`.  Raises UnsafeName."""
    parts = revision.split("/")
    if (
        not _REVISION.fullmatch(revision)
        or ".." in revision
        or any(not part or part.startswith(".") or part.endswith((".", ".lock")) for part in parts)
    ):
        raise UnsafeName(
            f"The revision {_shown(revision)} is not the name of a branch, a tag or a commit.",
            fix='give a branch ("main"), a tag ("v1.0") or a commit (40 hexadecimal digits)',
        )
    return revision


def name_fault(name: str) -> str | None:
    """What `check_name` would refuse, in words: for listings of local folders, which leave such a name out."""
    if not name:
        return "is empty"
    if len(name) > MAX_NAME:
        return f"has {len(name)} characters, more than {MAX_NAME}"
    if "\\" in name:
        return "has a backslash"
    if any(unicodedata.category(character) in ("Cc", "Cs") or character in _DECEPTIVE for character in name):
        return "has a character that cannot be shown"
    if name.startswith(("/", "~")) or re.match(r"[A-Za-z]:", name):
        return "is not relative"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return f"has the part {part!r}, which leads to another folder"
        if len(part.encode()) > 255:
            return "has a part longer than 255 bytes"
    return None


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else f"{name[:60]}...{name[-15:]}")
