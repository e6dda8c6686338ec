"""How fast the machine reads memory, which bounds how often the weights of a model can be read."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy

BUFFER = 512 << 20
"""Bytes, far more than processors have in their caches."""
STREAMS = (1, 2, 4, 8)
"""Places that a thread reads side by side; which number is best differs from one processor to the next."""
_SOURCE = Path(__file__).parent / "streams.c"


class Bandwidth:
    """The fastest of several ways to read a large buffer with `threads` threads: streams.c where there is a compiler,
    else reductions of numpy, which reach less on some processors.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        whole = numpy.full(BUFFER + 64, 1, numpy.uint8)  # zeros would be pages that were never touched
        shift = -whole.ctypes.data % 64
        self._bytes = whole[shift : shift + BUFFER]
        self.compiled = _compiled()

    def measure(self, tries: int = 5) -> float:
        """Bytes per second, the most of `tries` readings in each way; about a quarter of a second."""
        ways = self._of_numpy() if self.compiled is None else self._of_streams(self.compiled)
        return BUFFER / min(way() for _ in range(tries) for way in ways)

    def _of_streams(self, read: Callable[..., float]) -> list[Callable[[], float]]:
        def way(streams: int) -> Callable[[], float]:
            return lambda: read(self._bytes.ctypes.data, BUFFER, self._threads, streams)

        return [way(streams) for streams in STREAMS]

    def _of_numpy(self) -> list[Callable[[], float]]:
        """numpy uses one thread, and lets others run meanwhile."""
        parts = numpy.array_split(self._bytes, self._threads)

        def way(kind: type[numpy.generic]) -> Callable[[], float]:
            def timed() -> float:
                with ThreadPoolExecutor(self._threads) as pool:
                    start = time.perf_counter()
                    list(pool.map(lambda part: numpy.max(part.view(kind)), parts))
                    return time.perf_counter() - start

            return timed

        return [way(numpy.uint8), way(numpy.int64)]


def _compiled() -> Callable[..., float] | None:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "streams.so"
        flags = ["-O3", "-march=native", "-funroll-loops", "-shared", "-fPIC", "-pthread"]
        done = subprocess.run([compiler, *flags, str(_SOURCE), "-o", str(made)], capture_output=True)
        if done.returncode:
            return None
        found: Callable[..., float] = ctypes.CDLL(str(made)).read_seconds
    found.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int]  # type: ignore[attr-defined]
    found.restype = ctypes.c_double  # type: ignore[attr-defined]
    return found
