"""Names become addresses, and addresses connections, all within one deadline (of time.monotonic).

TimeoutError says that it has passed; other failures are OSError.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from bestiary.media.addresses import Address

Resolve = Callable[[str, int], Iterable[str]]
"""The addresses of a host and port, as texts; OSError where there are none."""

BUFFER = 1 << 16
_ATTEMPTS = 4
"""Addresses of one host that are tried."""


def system_resolve(host: str, port: int) -> list[str]:
    """As the operating system resolves names."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def resolved(host: str, port: int, resolve: Resolve, deadline: float) -> list[str]:
    """In a thread, for resolving takes as long as the name's own servers like, and has no time limit to set."""
    answers: SimpleQueue[list[str] | Exception] = SimpleQueue()

    def work() -> None:
        try:
            answers.put(list(resolve(host, port)))
        except Exception as error:  # raised again below, in the thread that asked
            answers.put(error)

    threading.Thread(target=work, name="bestiary-resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=left(deadline))
    except Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def connected(addresses: Sequence[Address], port: int, deadline: float) -> socket.socket:
    """A connection to the first address that takes one.  Nothing is resolved here."""
    tried = addresses[:_ATTEMPTS]
    for index, address in enumerate(tried):
        made = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            made.settimeout(left(deadline) / (len(tried) - index))
            made.connect((str(address), port))
            return made
        except OSError:
            made.close()
            if index + 1 == len(tried):
                raise
    raise OSError("no address is given")


class Watched:
    """What http.client needs of a socket; every wait ends at the deadline, however slowly the other side drips."""

    def __init__(self, watched: socket.socket, deadline: float) -> None:
        self._watched, self._deadline = watched, deadline

    def sendall(self, data: Any) -> None:
        self._watched.settimeout(left(self._deadline))
        self._watched.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reads(self._watched, self._deadline), BUFFER)

    def close(self) -> None:
        """Nothing: http.client closes as soon as it has a reader, and the socket is its opener's to close."""


class _Reads(io.RawIOBase):
    def __init__(self, watched: socket.socket, deadline: float) -> None:
        self._watched, self._deadline = watched, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._watched.settimeout(left(self._deadline))
        return self._watched.recv_into(buffer)


def left(deadline: float) -> float:
    """Seconds until the deadline; TimeoutError where there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
