"""The one thread of a zoo that closes models for being idle."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from typing import Protocol

log = logging.getLogger("bestiary.zoo")


class Closer(Protocol):
    """What the thread calls."""

    def close_idle(self) -> float | None:
        """Close what was idle for too long.  Seconds until the next one may be due; None: there is none."""


class IdleWatch:
    """Starts its thread with the first model that has a limit; the thread does not keep the zoo alive."""

    def __init__(self, closer: Closer) -> None:
        self._closer = weakref.ref(closer)
        self._woken = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        weakref.finalize(closer, self._poke).atexit = False

    def wake(self) -> None:
        """Look at the models again, for one with a limit was loaded."""
        if self._thread is None or self._process != os.getpid():  # a fork takes no threads along
            self._process, self._woken = os.getpid(), threading.Event()
            self._thread = threading.Thread(target=self._run, name="bestiary-zoo", daemon=True)
            self._thread.start()
            # A thread that is inside torch while the interpreter ends would abort the process.
            atexit.register(self.stop)
        self._poke()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._ended = True
        self._poke()
        atexit.unregister(self.stop)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._process == os.getpid():
            thread.join()

    def _poke(self) -> None:
        self._woken.set()

    def _run(self) -> None:
        while not self._ended and (closer := self._closer()) is not None:
            self._woken.clear()
            seconds = closer.close_idle()
            del closer
            self._woken.wait(seconds)
        atexit.unregister(self.stop)
