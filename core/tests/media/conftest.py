"""What the tests of media share: a server that answers as a test says, and a resolver that says what a test says."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest


@dataclass
class Answering:
    """A server on 127.0.0.1, raw, so that it can break every rule of HTTP."""

    port: int
    requests: list[bytes] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


Answer = Callable[[socket.socket, bytes], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Answering]]:
    """Starts a server whose answers a function sends, given the connection and the head of the request."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(answer: Answer) -> Answering:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        answering = Answering(listener.getsockname()[1])

        def one(connection: socket.socket) -> None:
            with connection:
                try:
                    connection.settimeout(10)
                    head = b""
                    while b"\r\n\r\n" not in head and (piece := connection.recv(4096)):
                        head += piece
                    answering.requests.append(head)
                    answer(connection, head)
                except OSError:
                    pass  # the client has heard enough

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=one, args=(connection,), daemon=True)
                threads.append(thread)
                thread.start()

        thread = threading.Thread(target=accept, daemon=True)
        threads.append(thread)
        thread.start()
        return answering

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(timeout=10)
