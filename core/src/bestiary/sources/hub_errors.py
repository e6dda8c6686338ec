"""What the hub's client raises, in our words: nothing of huggingface_hub or its HTTP client leaves this package raw."""

import errno
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from socket import gaierror
from typing import Any

from bestiary.errors import AccessDenied, BestiaryError, HubUnavailable, ModelNotFound, SourceError
from bestiary.nearest import nearest

_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOCKED = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Place:
    """What was asked, and where, for the messages."""

    repository: str
    revision: str
    endpoint: str
    cache: str
    near: Callable[[], Sequence[str]] = tuple
    """Names of models like this one; asked only where none of this name is found."""

    def __str__(self) -> str:
        return f"{self.endpoint}/{self.repository} at {self.revision}"


@contextmanager
def translated(place: Place, doing: str) -> Iterator[None]:
    """Turns any exception of the block into a SourceError; `doing` says what failed: "fetching config.json"."""
    try:
        yield
    except BestiaryError:
        raise
    except Exception as error:
        raise translate(error, place, doing) from error


def translate(error: BaseException, place: Place, doing: str) -> BestiaryError:
    """The error for the first cause in the chain that says something: an answer of the hub, the disk, the network."""
    causes = list(_chain(error))
    for cause in causes:
        response = getattr(cause, "response", None)
        if response is not None and hasattr(response, "status_code"):
            return _from_answer(response, place, doing)
    for cause in causes:
        if isinstance(cause, OSError) and (found := _from_disk(cause, place, doing)) is not None:
            return found
    root = causes[-1]
    if "pip install hf_xet" in str(root):
        return SourceError(
            f"The hub hands out a file of this size only through Xet ({doing}).", where=place, fix="pip install hf_xet"
        )
    if not any(map(_is_network, causes)):
        return HubUnavailable(
            f"{place.endpoint} does not answer like a Hugging Face hub ({doing}: {_first_line(root)}).",
            where=place,
            fix="check HF_ENDPOINT, and whether a proxy or a login page of the network answers instead",
        )
    return HubUnavailable(
        f"The hub could not be reached ({doing}: {type(root).__name__}: {_first_line(root)}).",
        where=place,
        fix="check the network and HF_ENDPOINT, then try again; what was fetched so far is kept",
    )


def _from_answer(response: Any, place: Place, doing: str) -> BestiaryError:
    status: int = response.status_code
    headers: Mapping[str, str] = response.headers
    code = headers.get("X-Error-Code", "")
    said = headers.get("X-Error-Message", "")
    if code == "RevisionNotFound":
        return ModelNotFound(
            f"{place.repository} has no revision {place.revision!r}.",
            where=place.endpoint,
            fix=f"see its branches and tags at {place.endpoint}/{place.repository}/tree/main",
        )
    if code == "EntryNotFound":
        return ModelNotFound(
            f"{place.repository} has no such file at {place.revision} ({doing}).",
            where=place,
            fix=f"see its files at {place.endpoint}/{place.repository}/tree/{place.revision}",
        )
    if code == "GatedRepo":
        return AccessDenied(
            f"{place.repository} is gated: its terms must be accepted once, with an account. {said}".rstrip(),
            where=place,
            fix=f"accept the terms at {place.endpoint}/{place.repository}, then run: hf auth login",
        )
    if status == 401:
        return _unauthorized(response, place, said)
    if status == 403:
        return AccessDenied(
            f"The hub forbids access to {place.repository}. {said}".rstrip(),
            where=place,
            fix=f"open {place.endpoint}/{place.repository} while logged in; "
            "if you may read it there, run: hf auth login, with a token that may read it too",
        )
    if status == 404:
        return _not_found(place)
    if status == 429:
        wait = _waiting_time(headers)
        return HubUnavailable(
            f"The hub answers that there were too many requests{f'; it asks to wait {wait} seconds' if wait else ''}.",
            where=place,
            fix=f"wait{f' {wait} seconds' if wait else ' a few minutes'} and try again; "
            "logged in, the limits are higher: hf auth login",
        )
    return HubUnavailable(
        f"The hub failed with status {status} ({doing}). {said}".rstrip(),
        where=place,
        fix="try again later; https://status.huggingface.co shows known trouble",
    )


def _not_found(place: Place) -> ModelNotFound:
    """No repository of this name: with near names, if the hub knows some."""
    return ModelNotFound(
        f"There is no model {place.repository!r} at {place.endpoint}.{_meant(place)}",
        where=place.endpoint,
        fix=f"correct the id; a local folder of this name would have to be at ./{place.repository}",
    )


def _unauthorized(response: Any, place: Place, said: str) -> AccessDenied:
    if response.request.headers.get("authorization"):
        return AccessDenied(
            f"The hub refuses the token, for {place.repository}. {said}".rstrip(), where=place, fix="hf auth login"
        )
    # Without a login the hub answers the same for a private repository and for none at all.
    return AccessDenied(
        f"The hub shows no model {place.repository!r} without a login: it is private, or there is none of this "
        f"name.{_meant(place)}",
        where=place,
        fix=f"correct the id, or run: hf auth login (a local folder would have to be at ./{place.repository})",
    )


def _meant(place: Place) -> str:
    found = nearest(place.repository, place.near(), count=5, cutoff=0.3)
    return f" Did you mean {', '.join(found)}?" if found else ""


def _from_disk(error: OSError, place: Place, doing: str) -> SourceError | None:
    if error.errno in _FULL:
        return SourceError(
            f"The disk is full ({doing}).",
            where=place.cache,
            fix="free some space (hf cache ls shows what is cached), or set HF_HOME to a folder on a larger disk",
        )
    if error.errno == errno.EFBIG:
        return SourceError(
            f"The file is larger than the file system or a limit of this process allows ({doing}).",
            where=place.cache,
            fix="see `ulimit -f`, or set HF_HOME to a folder on another file system",
        )
    if error.errno in _LOCKED and error.filename is not None:  # without a file it is a firewall that refuses a socket
        return SourceError(
            f"The cache folder cannot be written ({doing}: {error.strerror}).",
            where=place.cache,
            fix="set HF_HOME to a folder that you may write to, or give it the permissions",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EIO):
        return SourceError(
            f"The cache folder cannot be used ({doing}: {error.strerror}).",
            where=place.cache,
            fix="set HF_HOME to another folder",
        )
    return None


def _waiting_time(headers: Mapping[str, str]) -> int | None:
    after = headers.get("Retry-After", "").strip()
    if after.isdecimal():
        return int(after)
    limit = re.search(r"\bt\s*=\s*(\d+)", headers.get("RateLimit", ""))
    return int(limit[1]) if limit else None


def _is_network(error: BaseException) -> bool:
    library = type(error).__module__.partition(".")[0]
    return library.startswith(("httpx", "httpcore")) or isinstance(error, ConnectionError | TimeoutError | gaierror)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no details"
