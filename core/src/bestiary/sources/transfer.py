"""Several files at once, with progress and a clean stop.

The callback is called in the thread that asked, some ten times a second, so it may draw, raise, or be interrupted; the
work runs in daemon threads that look at `stopped` whenever they count bytes.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Self

from bestiary.records import Progress

THREADS = 4
_INTERVAL = 0.1
_GRACE = 2.0
"""Seconds that an interrupted transfer waits for its threads to delete their partial files."""


class Stopped(BaseException):
    """Ends a worker whose result nobody waits for; not an Exception, so that no library takes it for a failure."""


class Transfer:
    """Counts bytes per stage and file, and runs one job per file in a few threads."""

    def __init__(self, progress: Callable[[Progress], None] | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._totals: dict[str, dict[str, int]] = {}
        self._done: dict[str, dict[str, int]] = {}
        self._latest: dict[str, str] = {}
        self._reported: dict[str, tuple[int, int, str]] = {}
        self.stopped = threading.Event()

    def expect(self, stage: str, sizes: Mapping[str, int]) -> None:
        """Add files to a stage; one that is already there starts again from zero."""
        with self._lock:
            self._totals.setdefault(stage, {}).update(sizes)
            self._done.setdefault(stage, {}).update(dict.fromkeys(sizes, 0))

    def advance(self, stage: str, name: str, count: int) -> None:
        """Count bytes of an expected file.  Raises Stopped after an interruption or the failure of another file."""
        if self.stopped.is_set():
            raise Stopped
        with self._lock:
            if name in self._done.get(stage, ()):
                self._done[stage][name] += count
                self._latest[stage] = name

    def finish(self, stage: str, name: str) -> None:
        """The file is complete, whatever was counted."""
        with self._lock:
            if name in self._done.get(stage, ()):
                self._done[stage][name] = self._totals[stage][name]
                self._latest[stage] = name

    def run(self, work: Callable[[str], None], names: Sequence[str]) -> None:
        """work(name) for every name.  The first failure stops the others and is raised."""
        jobs: SimpleQueue[str] = SimpleQueue()
        outcomes: SimpleQueue[BaseException | None] = SimpleQueue()
        for name in names:
            jobs.put(name)

        def serve() -> None:
            while not self.stopped.is_set():
                try:
                    name = jobs.get_nowait()
                except Empty:
                    return
                try:
                    work(name)
                except BaseException as error:  # carried to the thread that asked
                    outcomes.put(error)
                else:
                    outcomes.put(None)

        threads = [
            threading.Thread(target=serve, name=f"bestiary-transfer-{number}", daemon=True)
            for number in range(min(THREADS, len(names)))
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in names:
                self._await(outcomes)
        except BaseException:
            self.stopped.set()
            deadline = time.monotonic() + _GRACE
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, deadline - time.monotonic()))
            raise
        self._report()

    def _await(self, outcomes: "SimpleQueue[BaseException | None]") -> None:
        while True:
            try:
                error = outcomes.get(timeout=_INTERVAL)
            except Empty:
                self._report()
                continue
            if error is not None:
                raise error
            return self._report()

    def _report(self) -> None:
        if self._progress is None:
            return
        with self._lock:
            events = []
            for stage, totals in self._totals.items():
                total = sum(totals.values())
                done = sum(min(count, totals[name]) for name, count in self._done[stage].items())
                # A file that starts again does not take the bar back.
                done = max(done, self._reported.get(stage, (0, 0, ""))[0])
                state = (done, total, self._latest.get(stage, ""))
                if self._reported.get(stage) != state:
                    self._reported[stage] = state
                    events.append(Progress(stage, *state))
        for event in events:
            self._progress(event)


def progress_bar(advance: Callable[[int], None]) -> type:
    """A class that huggingface_hub takes for tqdm: it counts and draws nothing.

    It is not a subclass of tqdm, which would draw, register itself globally and start a monitor thread.  With
    `update_transfer`, a Xet download reports the bytes of the file through `update` and those of the network apart;
    only the former add up to the file's size.
    """

    class Bar:
        def __init__(self, *_: object, total: int | None = None, initial: int = 0, **__: object) -> None:
            self.total, self.n = total, initial

        def update(self, count: float | None = 1) -> None:
            self.n += int(count or 0)
            advance(int(count or 0))

        def update_transfer(self, count: float | None = 1) -> None:
            pass

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __getattr__(self, name: str) -> Callable[..., None]:
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *_, **__: None  # set_description, set_postfix_str, refresh, close and whatever comes

    return Bar
