"""What answers a URL: bodies within a time and a number of bytes, redirects that are judged anew, certificates."""

import gzip
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bestiary.errors import MediaError
from bestiary.media.fetching import fetch
from bestiary.media.limits import MediaLimits

INSIDE = MediaLimits(private=True, seconds=10)


def names(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    return lambda host, port: list(addresses)


def unasked(host: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{host} was resolved")


def body(content: bytes, *headers: str, status: str = "200 OK") -> Callable[[socket.socket, bytes], None]:
    head = "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()
    return lambda connection, request: connection.sendall(head + content)


def test_a_body_arrives_and_the_request_tells_nothing(serve: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    answering = serve(body(b"picture", "Content-Length: 7"))
    assert (
        fetch(answering.url("/a%20b/é?q=1&x=ü#part", host="Pictures.test."), INSIDE, resolve=names("127.0.0.1"))
        == b"picture"
    )
    head = answering.requests[0].decode()
    assert head.startswith("GET /a%20b/%C3%A9?q=1&x=%C3%BC HTTP/1.1\r\n")
    assert f"\r\nHost: pictures.test:{answering.port}\r\n" in head
    assert "\r\nAccept-Encoding: identity\r\n" in head
    assert not any(word in head.lower() for word in ("cookie", "authorization", "referer", "part"))


def test_bodies_in_chunks_and_without_length(serve: Callable) -> None:
    chunked = serve(body(b"3\r\npic\r\n4\r\nture\r\n0\r\n\r\n", "Transfer-Encoding: chunked"))
    assert fetch(chunked.url(), INSIDE) == b"picture"
    assert fetch(serve(body(b"picture")).url(), INSIDE) == b"picture"


def test_the_address_that_was_judged_is_the_one_connected_to(serve: Callable) -> None:
    """DNS that changes its mind: the second answer is never asked for."""
    answering = serve(body(b"picture", "Content-Length: 7"))
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    assert fetch(answering.url(host="pictures.test"), INSIDE, resolve=lambda host, port: answers.pop(0)) == b"picture"
    assert answers == [["169.254.169.254"]]


def test_the_next_address_is_tried(serve: Callable) -> None:
    answering = serve(body(b"picture"))
    assert fetch(answering.url(host="pictures.test"), INSIDE, resolve=names("127.0.0.2", "127.0.0.1")) == b"picture"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_redirects_are_followed(status: str, serve: Callable) -> None:
    last = serve(body(b"picture"))
    first = serve(body(b"", f"Location: {last.url('/b')}", status=status))
    assert fetch(first.url(), INSIDE) == b"picture"
    assert last.requests[0].startswith(b"GET /b ")


@pytest.mark.parametrize(
    "location",
    [
        *("http://inside.test/", "http://169.254.169.254/latest", "http://[::1]/", "file:///etc/passwd", "ftp://a/b"),
        *("http://0x7f000001/", "//inside.test/", "http://a@pictures.test/", "gopher://pictures.test/"),
    ],
)
def test_redirects_are_judged_like_urls(location: str, serve: Callable) -> None:
    """127.0.0.1 plays the public host; the others are refused even to those who may reach private addresses."""
    first = serve(body(b"", f"Location: {location}", status="302 Found"))
    known = {"pictures.test": "127.0.0.1", "inside.test": "169.254.169.254"}
    with pytest.raises(MediaError):
        fetch(first.url(host="pictures.test"), INSIDE, resolve=lambda host, port: [known.get(host, host)])
    assert len(first.requests) == 1


def test_redirects_end(serve: Callable) -> None:
    answering = serve(body(b"", "Location: /again", status="302 Found"))
    with pytest.raises(MediaError, match="more than 3 redirects"):
        fetch(answering.url(), INSIDE)
    assert len(answering.requests) == 4
    with pytest.raises(MediaError, match="more than 0 redirects"):
        fetch(answering.url(), MediaLimits(private=True, redirects=0))


def test_hosts_that_are_allowed(serve: Callable) -> None:
    answering = serve(body(b"picture"))
    limits = MediaLimits(private=True, remote=("Pictures.test", "*.example.com"))
    for host in ("pictures.test", "PICTURES.test.", "a.example.com", "a.b.example.com"):
        assert fetch(answering.url(host=host), limits, resolve=names("127.0.0.1")) == b"picture"
    for host in ("example.com", "badexample.com", "pictures.test.evil.test", "127.0.0.1"):
        with pytest.raises(MediaError, match="Nothing is fetched from"):
            fetch(answering.url(host=host), limits, resolve=unasked)
    with pytest.raises(MediaError, match="not on the public internet"):  # a name that is allowed opens no network
        fetch(answering.url(host="pictures.test"), MediaLimits(remote=("pictures.test",)), resolve=names("127.0.0.1"))
    with pytest.raises(MediaError, match="not fetched here"):
        fetch(answering.url(), MediaLimits(private=True, remote="off"), resolve=unasked)


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "206 Partial Content", "204 No Content", "401 Who"])
def test_other_answers(status: str, serve: Callable) -> None:
    answering = serve(body(b"secret words", status=status))
    with pytest.raises(MediaError, match=status[:3]) as caught:
        fetch(answering.url(), INSIDE)
    assert "secret" not in str(caught.value)


def endless(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x" * 65536)


def endless_chunks(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        endless,
        endless_chunks,
        body(b"x" * 2001, "Content-Length: 2001"),
        body(b"x" * 2001),
        body(b"", "Content-Length: 999999999999999"),
    ],
)
def test_bodies_above_the_limit(answer: Callable, serve: Callable) -> None:
    with pytest.raises(MediaError, match="more than 2000 bytes"):
        fetch(serve(answer).url(), MediaLimits(private=True, bytes=2000, seconds=10))


def test_a_body_of_just_the_limit(serve: Callable) -> None:
    limits = MediaLimits(private=True, bytes=2000, seconds=10)
    assert len(fetch(serve(body(b"x" * 2000)).url(), limits)) == 2000
    # More than is announced is not read.
    assert fetch(serve(body(b"x" * 9000, "Content-Length: 5")).url(), limits) == b"xxxxx"


@pytest.mark.parametrize(
    "answer",
    [
        body(b"x" * 50, "Content-Length: 100"),
        body(b"64\r\nxx", "Transfer-Encoding: chunked"),
        body(b"zz\r\nxx", "Transfer-Encoding: chunked"),
        body(b"", "Content-Length: 100"),
        lambda connection, request: None,
        lambda connection, request: connection.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n"),
        lambda connection, request: connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n"),
        lambda connection, request: connection.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
    ],
)
def test_answers_that_break_off_or_are_none(answer: Callable, serve: Callable) -> None:
    with pytest.raises(MediaError, match="broke off"):
        fetch(serve(answer).url(), INSIDE)


@pytest.mark.parametrize(
    "header",
    [
        "Content-Encoding: gzip",
        "Content-Encoding: br",
        "Content-Encoding: identity, gzip",
        "Transfer-Encoding: gzip, chunked",
    ],
)
def test_compressed_bodies_are_not_unpacked(header: str, serve: Callable) -> None:
    bomb = gzip.compress(bytes(10 << 20))
    with pytest.raises(MediaError, match="compressed"):
        fetch(serve(body(bomb, header)).url(), INSIDE)


def drip(start: bytes) -> Callable[[socket.socket, bytes], None]:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(start)
        for _ in range(100):
            time.sleep(0.05)
            connection.sendall(b"1")

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        drip(b"HTTP/1.1 200 OK\r\n\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nX: "),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        drip(b""),
        lambda connection, request: time.sleep(1),
    ],
)
def test_slow_answers_end_at_the_deadline(answer: Callable, serve: Callable) -> None:
    start = time.monotonic()
    with pytest.raises(MediaError, match=r"within 0\.5 seconds"):
        fetch(serve(answer).url(), MediaLimits(private=True, seconds=0.5))
    assert time.monotonic() - start < 2.5


def test_slow_names_end_at_the_deadline() -> None:
    start = time.monotonic()
    with pytest.raises(MediaError, match=r"within 0\.3 seconds"):
        fetch("http://pictures.test/", MediaLimits(seconds=0.3), resolve=lambda host, port: time.sleep(2) or [])
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "unknown"), UnicodeError("label too long"), OSError("no network")]
)
def test_names_that_are_unknown(error: Exception) -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        raise error

    with pytest.raises(MediaError, match=r"pictures\.test is not known"):
        fetch("http://pictures.test/", resolve=resolve)
    with pytest.raises(MediaError):
        fetch("http://pictures.test/", resolve=names())


def test_the_certificate_must_be_of_the_name(tmp_path: Path, serve: Callable) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=pictures.test"]
    made += ["-addext", "subjectAltName=DNS:pictures.test", "-keyout", "key.pem", "-out", "certificate.pem"]
    try:
        subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl, which makes the certificate, is not installed")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    asked: list[str] = []
    server.sni_callback = lambda connection, name, context: asked.append(name)
    port = _secure(server)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    here = names("127.0.0.1")
    assert fetch(f"https://pictures.test:{port}/", INSIDE, resolve=here, context=trusting) == b"picture"
    assert asked == ["pictures.test"]
    with pytest.raises(MediaError, match="Hostname mismatch"):
        fetch(f"https://other.test:{port}/", INSIDE, resolve=here, context=trusting)
    with pytest.raises(MediaError, match=r"self.signed certificate"):
        fetch(f"https://pictures.test:{port}/", INSIDE, resolve=here)
    plain = serve(lambda connection, request: None).port
    with pytest.raises(MediaError, match="within"):
        fetch(f"https://pictures.test:{plain}/", MediaLimits(private=True, seconds=0.5), resolve=here, context=trusting)


def _secure(context: ssl.SSLContext) -> int:
    """The port of a server for three connections."""
    listener = socket.create_server(("127.0.0.1", 0))

    def work() -> None:
        with listener:
            for _ in range(3):
                connection, _ = listener.accept()
                try:
                    with connection, context.wrap_socket(connection, server_side=True) as secure:
                        secure.recv(4096)
                        secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npicture")
                except OSError:
                    pass  # the client did not like the certificate

    threading.Thread(target=work, daemon=True).start()
    return int(listener.getsockname()[1])
