"""A small Hugging Face hub on 127.0.0.1, for tests of whatever downloads models.

    with LocalHub() as hub:
        commit = hub.add("org/model", {"config.json": b"{}", "model.safetensors": weights})
        hub.faults.append(Fault("model.safetensors", method="GET", cut=1000))
        repository = open_hub("org/model", SourceOptions(cache_dir=folder), endpoint=hub.endpoint)

It speaks what the real huggingface_hub client asks for (model information with file metadata, search, HEAD and GET of a
file by revision or commit with ETag, size, commit and Range) and misbehaves on demand.  A program in another process
finds it through `hub.environment`.
"""

import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

_MODEL = re.compile(r"/api/models/(?P<id>.+?)(?:/revision/(?P<revision>[^/]+))?")
_FILE = re.compile(r"/(?P<id>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_PIECE = 64 * 1024


@dataclass
class Fault:
    """How to treat the next `times` requests whose path contains `match`; the first fault that fits is used."""

    match: str = ""
    method: str = ""
    """"GET" or "HEAD"; empty for both."""
    times: int = 1
    status: int | None = None
    """Answer with this status and nothing else, except `headers`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Close the connection after so many bytes of the body."""
    corrupt: bool = False
    """Send a body of the right size with other content."""
    ignore_range: bool = False
    """Answer a range request with the whole file."""
    delay: float = 0.0
    """Seconds to wait before each piece of 64 KiB, and before the answer itself."""
    body: bytes | None = None
    """Send this instead, with status 200: what a login page of a network does."""


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class _Model:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)


class LocalHub:
    """The server: models to serve, `faults` to commit, `requests` that came.

    Files of at least `large` bytes are served as LFS files are, under their sha256; smaller ones under their git hash.
    With `token`, every request must carry it.  `before` is called with each request before it is answered, in the
    thread of the server: a test may move a revision there.
    """

    def __init__(self, *, large: int = 1000, token: str | None = None) -> None:
        self.large, self.token = large, token
        self.models: dict[str, _Model] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.before: Callable[[Request], None] | None = None
        self.connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.02), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for connection in self.connections:  # a client that keeps one open would go on being served
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs in its environment to use this hub."""
        return {"HF_ENDPOINT": self.endpoint, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def add(self, id: str, files: Mapping[str, bytes], revision: str = "main") -> str:
        """Publish a commit with exactly these files, and let `revision` mean it.  Returns the commit."""
        digest = hashlib.sha1(id.encode(), usedforsecurity=False)
        for name, content in sorted(files.items()):
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        commit = digest.hexdigest()
        with self._lock:
            model = self.models.setdefault(id, _Model())
            model.commits[commit] = dict(files)
            model.revisions[revision] = commit
        return commit

    def count(self, method: str, match: str = "") -> int:
        """How many requests of a method came whose path contains `match`."""
        with self._lock:
            return sum(request.method == method and match in request.path for request in self.requests)

    def etag(self, content: bytes) -> str:
        """The hash under which a file is served: sha256 where it is large, git's blob sha1 where it is small."""
        if len(content) >= self.large:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    # Called by the handler

    def connect(self, connection: socket.socket, opened: bool) -> None:
        """Note a connection, so that leaving the hub ends it."""
        with self._lock:
            (self.connections.add if opened else self.connections.discard)(connection)

    def arrive(self, request: Request) -> Fault:
        """Note a request, and take the fault that is meant for it."""
        with self._lock:
            self.requests.append(request)
            fault = next((fault for fault in self.faults if fault.times > 0 and _fits(fault, request)), Fault())
            fault.times -= 1
        if self.before is not None:
            self.before(request)
        return fault

    def information(self, id: str, revision: str | None, files_metadata: bool) -> dict[str, object] | str:
        """The answer of /api/models/<id>, or the hub's error code."""
        found = self._find(id, revision or "main")
        if isinstance(found, str):
            return found
        commit, files = found
        siblings: list[dict[str, object]] = []
        for name, content in files.items():
            sibling: dict[str, object] = {"rfilename": name}
            if files_metadata:
                sibling |= {"size": len(content), "blobId": self.etag(content)[:40]}
                if len(content) >= self.large:
                    sibling["lfs"] = {"size": len(content), "sha256": self.etag(content), "pointerSize": 135}
            siblings.append(sibling)
        return {"id": id, "modelId": id, "sha": commit, "private": False, "tags": [], "siblings": siblings}

    def file(self, id: str, revision: str, name: str) -> tuple[str, bytes] | str:
        """The commit and the content of a file, or the hub's error code."""
        found = self._find(id, revision)
        if isinstance(found, str):
            return found
        commit, files = found
        return (commit, files[name]) if name in files else "EntryNotFound"

    def search(self, query: Mapping[str, list[str]]) -> list[dict[str, str]]:
        """The models whose id contains the searched text, ignoring case."""
        text, author = query.get("search", [""])[0].lower(), query.get("author", [""])[0]
        found = [id for id in self.models if text in id.lower() and id.startswith(f"{author}/" if author else "")]
        return [{"id": id, "modelId": id} for id in found[: int(query.get("limit", ["1000"])[0])]]

    def _find(self, id: str, revision: str) -> tuple[str, dict[str, bytes]] | str:
        with self._lock:
            model = self.models.get(id)
            if model is None:
                return "RepoNotFound"
            commit = model.revisions.get(revision, revision)
            return (commit, model.commits[commit]) if commit in model.commits else "RevisionNotFound"


def _fits(fault: Fault, request: Request) -> bool:
    return fault.match in request.path and fault.method in ("", request.method)


def _handler(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    """A handler class for one hub: the standard library makes one instance of it per connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            hub.connect(self.connection, True)

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client was killed between two requests
                super().handle()

        def finish(self) -> None:
            hub.connect(self.connection, False)
            with contextlib.suppress(OSError):
                super().finish()

        def do_GET(self) -> None:
            self._serve("GET")

        def do_HEAD(self) -> None:
            self._serve("HEAD")

        def log_message(self, format: str, *arguments: object) -> None:
            """Silent: a test reads `requests`."""

        def _serve(self, method: str) -> None:
            try:
                self._answer(method)
            except OSError:  # the client was killed, or had enough
                self.close_connection = True

        def _answer(self, method: str) -> None:
            url = urlsplit(self.path)
            path = unquote(url.path)
            fault = hub.arrive(Request(method, path, dict(self.headers.items())))
            if fault.delay:
                time.sleep(fault.delay)
            if fault.status is not None:
                return self._send(fault.status, b"", fault.headers)
            if fault.body is not None:
                return self._send(200, fault.body, {"Content-Type": "text/html", **fault.headers})
            if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
                message = "Invalid username or password."
                return self._send(401, b"", {"X-Error-Message": message})
            query = parse_qs(url.query)
            if path == "/api/models":
                return self._json(hub.search(query))
            # Revisions have their slashes escaped in an address, so the pattern runs over the raw path.
            if found := _MODEL.fullmatch(url.path):
                revision = found["revision"] and unquote(found["revision"])
                return self._json(hub.information(unquote(found["id"]), revision, "blobs" in query))
            if found := _FILE.fullmatch(url.path):
                return self._file(fault, *map(unquote, found.group("id", "revision", "name")))
            return self._send(404, b"", {})

        def _json(self, answer: object) -> None:
            if isinstance(answer, str):
                return self._send(404, b"", {"X-Error-Code": answer})
            return self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

        def _file(self, fault: Fault, id: str, revision: str, name: str) -> None:
            answer = hub.file(id, revision, name)
            if isinstance(answer, str):
                return self._send(404, b"", {"X-Error-Code": answer})
            commit, content = answer
            etag = f'"{hub.etag(content)}"'
            headers = {"ETag": etag, "X-Repo-Commit": commit, "Accept-Ranges": "bytes", **fault.headers}
            if len(content) >= hub.large:
                headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(len(content))}
            body, status = bytes(byte ^ 1 for byte in content) if fault.corrupt else content, 200
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if wanted and not fault.ignore_range:
                start, end = int(wanted[1]), min(int(wanted[2] or len(body)), len(body) - 1)
                if start >= len(body):
                    return self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
                body, status = body[start : end + 1], 206
            return self._send(status, body, headers, fault)

        def _send(self, status: int, body: bytes, headers: Mapping[str, str], fault: Fault | None = None) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            cut = fault.cut if fault else None
            for start in range(0, len(body if cut is None else body[:cut]), _PIECE):
                if fault and fault.delay:
                    time.sleep(fault.delay)
                self.wfile.write(body[start : start + _PIECE if cut is None else min(start + _PIECE, cut)])
            if cut is not None:
                self.close_connection = True

    return Handler
