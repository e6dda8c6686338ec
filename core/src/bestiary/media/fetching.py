"""What lies behind an http(s) URL, fetched so that a URL of a stranger reaches nothing that the stranger could not.

Every address of a host is judged before one is connected to, and the connection goes to the address that was judged: no
name is resolved twice (DNS rebinding).  Redirects begin anew.  No cookies, credentials, proxies or compressed bodies.
As in mistral.rs (media_source.rs): 64 MiB, 30 seconds, 3 redirects.
"""

from __future__ import annotations

import http.client
import ipaddress
import logging
import ssl
import time
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from bestiary.errors import MediaError
from bestiary.media.addresses import Address, canonical_host, may_ask, may_reach
from bestiary.media.connecting import BUFFER, Resolve, Watched, connected, left, resolved, system_resolve
from bestiary.media.limits import DEFAULT, MediaLimits

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FIX = "send the picture itself, as a data URL: data:image/png;base64,..."

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Target:
    """One URL, taken apart; that its host may be asked is settled."""

    where: str
    url: str
    scheme: str
    host: str
    port: int
    path: str
    """With the query; what a request asks for."""

    @property
    def authority(self) -> str:
        """The host, with the port where it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def fetch(
    url: str,
    limits: MediaLimits = DEFAULT,
    *,
    deadline: float | None = None,
    resolve: Resolve = system_resolve,
    context: ssl.SSLContext | None = None,
) -> bytes:
    """The body.  `deadline` is of time.monotonic; `context` says which certificates count, by default the system's.

    Raises MediaError.  It holds nothing of an answer's body, and no address that a name resolves to.
    """
    if deadline is None:
        deadline = time.monotonic() + limits.seconds
    for _ in range(limits.redirects + 1):
        target = _target(url, limits)
        try:
            found = _answer(target, limits, deadline, resolve, context)
        except TimeoutError as error:
            what = f"The host did not send everything within {limits.seconds:g} seconds."
            raise MediaError(what, where=target.where, fix=_FIX) from error
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", None) or error.reason or type(error).__name__
            raise MediaError(f"There is no secure connection: {reason}.", where=target.where, fix=_FIX) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            log.debug("fetching failed: %s", error)
            what = f"The host cannot be asked, or broke off ({type(error).__name__})."
            raise MediaError(what, where=target.where, fix=f"check the URL, or {_FIX}") from error
        if isinstance(found, bytes):
            return found
        url = found
    raise MediaError(f"There are more than {limits.redirects} redirects.", where=target.where, fix="give the last URL")


def _target(url: str, limits: MediaLimits) -> _Target:
    """Raises MediaError for a URL that is not of http, or of a host that may not be asked."""
    where = url if len(url) <= 200 else f"{url[:200]}..."
    if limits.remote == "off":
        raise MediaError("URLs are not fetched here.", where=where, fix=_FIX)
    # urlsplit drops tabs and ends of lines, and browsers read "\" as "/": who checks a URL should see what is fetched.
    if any(character <= " " or character in "\\\x7f" for character in url):
        what = "The URL holds blanks, control characters or a backslash."
        raise MediaError(what, where=where, fix="write a blank as %20")
    try:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS:
            raise MediaError("Only URLs of http and https are fetched.", where=where, fix=_FIX)
        if "@" in parts.netloc:
            raise MediaError("The URL names a user: no credentials are sent.", where=where, fix="leave out user@")
        host, port = canonical_host(parts.hostname or ""), parts.port
        if "[" in parts.netloc and ":" not in host:
            raise ValueError("only addresses of IPv6 stand in brackets")
    except ValueError as error:
        what = f"The host of the URL cannot be used: {str(error)[:100]}."
        raise MediaError(what, where=where, fix="write the plain name of the host") from error
    if isinstance(limits.remote, tuple) and not may_ask(host, limits.remote):
        raise MediaError(f"Nothing is fetched from {host} here.", where=where, fix=_FIX)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    path = quote(path, safe="!#$%&'()*+,/:;=?@[]~")
    return _Target(where, url, parts.scheme, host, _PORTS[parts.scheme] if port is None else port, path)


def _answer(
    target: _Target, limits: MediaLimits, deadline: float, resolve: Resolve, context: ssl.SSLContext | None
) -> bytes | str:
    """The body, or the URL to which the answer points."""
    with connected(_judged(target, limits, deadline, resolve), target.port, deadline) as plain:
        if target.scheme == "http":
            return _asked(target, limits, Watched(plain, deadline))
        # The name is what the certificate must hold, though the connection went to an address.
        plain.settimeout(left(deadline))
        with (context or ssl.create_default_context()).wrap_socket(plain, server_hostname=target.host) as secure:
            return _asked(target, limits, Watched(secure, deadline))


def _judged(target: _Target, limits: MediaLimits, deadline: float, resolve: Resolve) -> list[Address]:
    """The addresses of a host, if all may be reached: one that may not shows that the name means something else."""
    try:
        found = resolved(target.host, target.port, resolve, deadline)
        addresses = [ipaddress.ip_address(address) for address in dict.fromkeys(found)]
    except TimeoutError:
        raise
    except (OSError, ValueError) as error:
        raise MediaError(f"The host {target.host} is not known.", where=target.where, fix="check the URL") from error
    if not all(may_reach(address, limits.private) for address in addresses):
        raise MediaError(f"The host {target.host} is not on the public internet.", where=target.where, fix=_FIX)
    return addresses


def _asked(target: _Target, limits: MediaLimits, watched: Watched) -> bytes | str:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = watched  # connected already, so that nothing is resolved
    connection.request("GET", target.path, headers=_headers(target))
    response = connection.getresponse()
    if response.status in _REDIRECTS:
        return urljoin(target.url, response.getheader("Location") or "")
    if response.status != 200:
        what = f"The host answered with status {response.status}."
        raise MediaError(what, where=target.where, fix="check the URL")
    if not _is_plain(response):
        what = "The host sent a compressed body, though it was asked for a plain one."
        raise MediaError(what, where=target.where, fix=_FIX)
    return _body(response, target, limits)


def _headers(target: _Target) -> dict[str, str]:
    return {
        "Host": target.authority,
        "User-Agent": "bestiary",
        "Accept": "image/*, video/*;q=0.5, */*;q=0.1",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }


def _is_plain(response: http.client.HTTPResponse) -> bool:
    content, transfer = response.getheader("Content-Encoding"), response.getheader("Transfer-Encoding")
    return (content is None or content.strip().lower() in ("", "identity")) and (
        transfer is None or transfer.strip().lower() == "chunked"
    )


def _body(response: http.client.HTTPResponse, target: _Target, limits: MediaLimits) -> bytes:
    too_large = MediaError(f"The host sends more than {limits.bytes} bytes.", where=target.where, fix=_FIX)
    if (response.length or 0) > limits.bytes:
        raise too_large
    made = bytearray()
    while piece := response.read(min(BUFFER, limits.bytes + 1 - len(made))):
        made += piece
        if len(made) > limits.bytes:
            raise too_large
    if response.length:  # that many bytes were announced and did not come
        raise MediaError("The host broke off before the end.", where=target.where, fix="try again")
    return bytes(made)
