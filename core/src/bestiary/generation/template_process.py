"""One process that renders chat templates, seen from its parent."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, TypeVar

_START_LIMIT = 30.0  # Seconds for the interpreter to start: a cold disk, a loaded machine.

# The environment holds tokens and keys; a worker gets only what an interpreter may need to start.
_ENVIRONMENT = ("SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")

_BOOT = "import sys; sys.path += sys.argv[2:]; import template_program; template_program.main()"

Result = TypeVar("Result")


class ProcessDied(Exception):
    """The process ended before it answered."""


class TemplateProcess:
    """One process and its two pipes; used by one thread at a time."""

    def __init__(self, limits: Mapping[str, float]) -> None:
        """`limits` are the arguments of `template_program.serve`.  OSError or ProcessDied where it cannot start."""
        folders = [str(Path(__file__).parent)]
        for module in ("jinja2", "markupsafe"):
            spec = find_spec(module)
            if spec is not None and spec.origin is not None:
                folders.append(str(Path(spec.origin).parent.parent))
        self.served = 0
        """Requests so far."""
        self.expired = False
        """Whether the process was killed because a request took too long."""
        self._lock = threading.Lock()
        self._turn = 0
        self.process = subprocess.Popen(
            # -I: no user site, no PYTHON* variables, no current folder; -S: no .pth file runs anything at start.
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT, json.dumps(limits), *dict.fromkeys(folders)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._requests: IO[bytes] = self.process.stdin
        self._answers: IO[bytes] = self.process.stdout
        try:
            self._timed(lambda: self._read(8), _START_LIMIT)
        except BaseException:
            self.kill()
            raise

    def ask(self, request: bytes, seconds: float, largest: int) -> tuple[dict[str, Any], bytes]:
        """The head and the text of the answer, of at most `largest` bytes each; ProcessDied where there is none."""
        self.served += 1
        return self._timed(lambda: self._exchange(request, largest), seconds)

    def kill(self) -> None:
        """End the process and take its exit status, so that no zombie stays."""
        self.process.kill()
        self.process.wait()
        self.forget()

    def forget(self) -> None:
        """Close our ends of the pipes, which is all that a process forked from the parent may do."""
        self._requests.close()
        self._answers.close()

    def _timed(self, work: Callable[[], Result], seconds: float) -> Result:
        """Runs `work`; a timer kills the process, which ends any read or write that waits for it."""
        with self._lock:
            self._turn += 1
            turn = self._turn
        timer = threading.Timer(seconds, self._expire, (turn,))
        timer.daemon = True
        timer.start()
        try:
            return work()
        except (OSError, ValueError) as error:
            raise ProcessDied from error
        finally:
            timer.cancel()
            with self._lock:
                self._turn += 1  # A timer that fires now comes too late to kill.

    def _expire(self, turn: int) -> None:
        with self._lock:
            if turn == self._turn:
                self.expired = True
                self.process.kill()

    def _exchange(self, request: bytes, largest: int) -> tuple[dict[str, Any], bytes]:
        view = memoryview(len(request).to_bytes(8, "big") + request)
        while view:
            view = view[self._requests.write(view) :]
        size = int.from_bytes(self._read(8), "big")
        if size > largest:
            raise ProcessDied
        head = json.loads(self._read(size))
        if not 0 <= head["size"] <= largest:
            raise ProcessDied
        return head, self._read(head["size"])

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._answers.read(min(size, 1 << 20))
            if not part:
                raise ProcessDied
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
