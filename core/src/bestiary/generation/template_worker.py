"""Rendering of chat templates in processes that can be killed.

A chat template comes with the checkpoint and is a program of a stranger.  jinja2's sandbox keeps it from Python's
internals, but not from computing for ever or from filling the memory (nested loops; `9**(9**9)`, which hangs even while
it is compiled; `'a'*10**10`).  So it runs in a worker process with limits on time, memory and output.

Measured with Python 3.11 on Linux: a worker starts in about 70 ms, maps 28 MB and holds 23 MB of memory; a render of a
usual template takes 0.2 to 0.4 ms, its first one 10 to 25 ms for the compilation.  The memory limit counts mapped
memory (RLIMIT_AS).  Windows has no such limits and macOS does not enforce this one; there the clock of the
parent and the limit on the output are what remains.
"""

import json
import os
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bestiary.errors import RequestError, TemplateError, TemplateRefusal
from bestiary.generation.template_process import ProcessDied, TemplateProcess

SOURCE_LIMIT = 1 << 20
"""Bytes of a template; the largest in use have about 30 thousand."""

REQUEST_LIMIT = 16 << 20
"""Bytes of a conversation as JSON."""

_PATIENCE = 0.05  # Seconds to wait for a busy worker before another is started: as long as starting one takes.


@dataclass(frozen=True)
class Rendered:
    """A rendered template."""

    text: str
    spans: tuple[tuple[int, int], ...]
    """Where the `{% generation %}` blocks lie, in characters, the end not included."""


class TemplateWorkers:
    """A few worker processes, started when they are needed and kept.

    Safe to use from several threads: while one render hangs until its limit, the others go on in other workers.  A
    process that was forked from this one starts workers of its own.  The workers end with this process, at the latest
    `seconds` + 1 after it was killed in the middle of a render.
    """

    def __init__(
        self, *, seconds: float = 2.0, memory: int = 256 << 20, output: int = 16 << 20, processes: int = 4
    ) -> None:
        """`seconds` is for one render, `memory` and `output` (characters of text) for one worker."""
        self._seconds, self._output, self._processes = seconds, output, processes
        self._limits = {"memory": memory, "output": output, "seconds": seconds}
        self._changed = threading.Condition()
        self._idle: list[TemplateProcess] = []
        self._alive: set[TemplateProcess] = set()
        self._count = 0  # Living workers, and those being started.
        self._end = weakref.finalize(self, _kill_all, self._alive)
        _forget_after_fork(self)

    def render(self, source: str, variables: Mapping[str, Any], *, where: str, now: datetime | None = None) -> Rendered:
        """Renders `source` with `variables`, which must be plain JSON values.

        `where` names the template in errors.  TemplateError for whatever the template does wrong, TemplateRefusal where
        it calls raise_exception, RequestError where the variables are too large.
        """
        if len(source) > SOURCE_LIMIT or len(source.encode("utf-8", "surrogatepass")) > SOURCE_LIMIT:
            raise TemplateError(f"The chat template has more than {SOURCE_LIMIT} bytes", where=where)
        fields = {"source": source, "variables": variables, "now": (now or datetime.now()).isoformat()}
        try:
            request = json.dumps(fields, check_circular=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"The messages are not plain JSON values: {error}") from error
        if len(request) > REQUEST_LIMIT:
            raise RequestError(f"The messages have {len(request)} bytes; at most {REQUEST_LIMIT} are taken")
        left = self._seconds
        for only_fresh in (False, True):
            worker = self._borrow(where, only_fresh)
            fresh = worker.served == 0
            head: dict[str, Any] = {}
            begin = time.monotonic()
            try:
                head, text = worker.ask(request, left, 4 * self._output + (1 << 20))
            except ProcessDied:
                if worker.expired:
                    raise TemplateError(
                        f"The chat template took longer than {self._seconds:g} s",
                        where=where,
                        fix="use another chat template",
                    ) from None
            finally:
                # After a breach the process is not trusted to be as good as new.
                self._return(worker, healthy=bool(head) and head.get("error") not in ("memory", "recursion"))
            if head and "error" not in head:
                return Rendered(text.decode("utf-8", "surrogatepass"), tuple(map(tuple, head["spans"])))
            if fresh or head.get("error", "memory") != "memory":
                break
            # It may have died while it was idle, or its memory was in pieces from earlier renders: a new one decides.
            left = max(left - (time.monotonic() - begin), 0.1)
        raise self._error(head, worker.process.returncode, where)

    def close(self) -> None:
        """Kill the workers; a later render starts new ones."""
        with self._changed:
            for worker in self._idle:
                self._alive.discard(worker)
                self._count -= 1
                worker.kill()
            self._idle.clear()
            self._changed.notify_all()

    def _borrow(self, where: str, only_fresh: bool) -> TemplateProcess:
        with self._changed:
            if not self._idle and self._count and not only_fresh:
                self._changed.wait_for(lambda: self._idle or not self._count, _PATIENCE)
            while not self._idle and self._count >= self._processes:
                self._changed.wait()
            if self._idle and not (only_fresh and self._count < self._processes):
                return self._idle.pop()
            self._count += 1
        try:
            worker = TemplateProcess(self._limits)
        except BaseException as error:
            with self._changed:
                self._count -= 1
                self._changed.notify()
            if isinstance(error, OSError | ProcessDied):
                raise TemplateError(
                    f"The process that renders chat templates could not start: {error or type(error).__name__}",
                    where=where,
                    fix=f"see what this says: {sys.executable} -I -c 'import jinja2'",
                ) from error
            raise
        self._alive.add(worker)
        return worker

    def _return(self, worker: TemplateProcess, *, healthy: bool) -> None:
        if not healthy:
            self._alive.discard(worker)
            worker.kill()
        with self._changed:
            if healthy:
                self._idle.append(worker)
            else:
                self._count -= 1
            self._changed.notify()

    def _error(self, head: Mapping[str, Any], status: int | None, where: str) -> TemplateError:
        if not head:
            return TemplateError(f"The chat template made its process die (exit status {status})", where=where)
        if head.get("line"):
            where = f"{where}, line {head['line']}"
        message = head["message"]
        match head["error"]:
            case "refused":
                return TemplateRefusal(message, where=where)
            case "syntax":
                what = f"The chat template is not valid jinja2: {message}"
            case "security":
                what = f"The chat template does what the sandbox forbids: {message}"
            case "undefined":
                what = f"The chat template uses a value that the conversation does not have: {message}"
            case "memory":
                what = f"The chat template needs more than {int(self._limits['memory']) >> 20} MB of memory"
            case "output":
                what = f"The chat template writes more than {self._output} characters"
            case "recursion":
                what = "The chat template is nested too deeply"
            case _:
                what = f"The chat template failed: {head['type']}: {message}"
        return TemplateError(what, where=where)

    def _after_fork(self) -> None:
        """In a forked child: the workers belong to the parent, and its threads' locks are held by nobody here."""
        for worker in self._alive:
            worker.process.returncode = 0  # Not our child: nothing to wait for.
            worker.forget()
        self._alive.clear()
        self._idle.clear()
        self._count = 0
        self._changed = threading.Condition()


def _kill_all(workers: set[TemplateProcess]) -> None:
    for worker in tuple(workers):
        worker.kill()
    workers.clear()


_pools: "weakref.WeakSet[TemplateWorkers]" = weakref.WeakSet()
_shared: list[TemplateWorkers] = []
_registering = threading.Lock()
_registered = False


def _forget_after_fork(pool: TemplateWorkers) -> None:
    global _registered
    _pools.add(pool)
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(after_in_child=_forget_all)


def _forget_all() -> None:
    for pool in tuple(_pools):
        pool._after_fork()


def shared_workers() -> TemplateWorkers:
    """The workers of this process, for everyone who needs no limits of his own."""
    if not _shared:
        with _registering:
            if not _shared:
                _shared.append(TemplateWorkers())
    return _shared[0]
