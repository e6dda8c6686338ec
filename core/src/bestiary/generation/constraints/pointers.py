"""JSON pointers (RFC 6901), the local references of a schema, and how large a schema is."""

import math
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from bestiary.errors import RequestError, shown
from bestiary.generation.constraints.limits import LIMITS


def escape(name: str) -> str:
    """A name as a part of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def measure(value: object, what: str) -> None:
    """Refuses a value that is no JSON, or too large or deep; without recursion, so that no depth is too deep to see."""
    pending: list[tuple[object, str, int]] = [(value, "", 0)]
    count = 0
    while pending:
        member, at, depth = pending.pop()
        count += 1
        if count > LIMITS.values:
            raise RequestError(f"{what} has more than {LIMITS.values} values.")
        if depth > LIMITS.depth:
            raise RequestError(f"{what} is nested too deeply; {LIMITS.depth} levels are taken.")
        if isinstance(member, dict):
            for name, inner in member.items():
                if not isinstance(name, str):
                    raise RequestError(f"{what} has the name {shown(name)}, which is no text.", where=f"#{at}")
                _encodable(name, what, at)
                pending.append((inner, f"{at}/{escape(name)}", depth + 1))
        elif isinstance(member, list):
            pending.extend((inner, f"{at}/{place}", depth + 1) for place, inner in enumerate(member))
        elif isinstance(member, str):
            _encodable(member, what, at)
        elif isinstance(member, float):
            if not math.isfinite(member):
                raise RequestError(f"{what} has a number that is not finite.", where=f"#{at}")
        elif member is not None and not isinstance(member, bool | int):
            raise RequestError(f"{what} has {shown(member)}, which is no JSON.", where=f"#{at}")


def _encodable(text: str, what: str, at: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{what} has a lone surrogate (U+{ord(text[error.start]):04X}), which no UTF-8 text can hold.",
            where=f"#{at[:200]}",
        ) from None
    if size > LIMITS.characters:
        raise RequestError(f"{what} has a text of {size} bytes; at most {LIMITS.characters} are taken.")


class References:
    """What the `$ref`s of one schema mean.  Only those inside of it do: nothing is fetched."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._anchors: dict[str, tuple[str, Any]] | None = None
        name = root.get("$id", root.get("id")) if isinstance(root, Mapping) else None
        self._own = name.rstrip("#") if isinstance(name, str) and not name.startswith("#") else None

    def find(self, reference: str, at: str) -> tuple[str, Any]:
        """The pointer and the schema that a reference at the place `at` means.  RequestError where it is not here."""
        local = reference
        if self._own and (local == self._own or local.startswith(self._own + "#")):
            local = local[len(self._own) :] or "#"
        if not local.startswith("#"):
            raise RequestError(
                f'"$ref" leads out of the schema, to {shown(reference)}; nothing is fetched.',
                where=f"#{at}",
                fix="put the schema under $defs and refer to it there",
            )
        for place, schema in self._walk(at, at):
            name = schema.get("$id", schema.get("id")) if isinstance(schema, dict) else None
            if place and isinstance(name, str) and not name.startswith("#"):
                raise RequestError('"$ref" in a schema with an "$id" of its own is not resolved.', where=f"#{at}")
        fragment = unquote(local[1:])
        if fragment and not fragment.startswith("/"):
            return self._anchor(fragment, at)
        found = list(self._walk(fragment, at))[-1]
        if not isinstance(found[1], dict | bool):
            raise RequestError(f'"$ref" leads to {shown(found[1])}, which is no schema.', where=f"#{at}")
        return found

    def _walk(self, pointer: str, at: str) -> Iterator[tuple[str, Any]]:
        member, place = self._root, ""
        yield place, member
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(member, dict) and name in member:
                member = member[name]
            elif isinstance(member, list) and name.isdecimal() and len(name) < 10 and int(name) < len(member):
                member = member[int(name)]
            else:
                raise RequestError(f'"$ref" leads to {shown("#" + pointer)}, which is not there.', where=f"#{at}")
            place = f"{place}/{escape(name)}"
            yield place, member

    def _anchor(self, name: str, at: str) -> tuple[str, Any]:
        if self._anchors is None:
            self._anchors = {}
            pending: list[tuple[str, Any]] = [("", self._root)]
            while pending:
                place, member = pending.pop()
                if isinstance(member, dict):
                    for anchor in (member.get("$anchor"), str(member.get("$id", member.get("id", "")))[1:]):
                        if isinstance(anchor, str) and anchor:
                            self._anchors[anchor] = (place, member)
                    pending.extend((f"{place}/{escape(key)}", inner) for key, inner in member.items())
                elif isinstance(member, list):
                    pending.extend((f"{place}/{number}", inner) for number, inner in enumerate(member))
        if name not in self._anchors:
            raise RequestError(f'"$ref" leads to {shown("#" + name)}, which is not there.', where=f"#{at}")
        return self._anchors[name]
