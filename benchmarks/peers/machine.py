"""What the machine's other processes take, and what a process holds.  Linux only."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

QUIET = 0.1
"""Of a core, which others may take where a machine counts as quiet."""


class Others:
    """How many cores other processes take, from its making on."""

    def __init__(self, own: Sequence[int] = ()) -> None:
        """`own` are the processes that do not count, beside this one; one that ends meanwhile counts."""
        self._own = (os.getpid(), *own)
        self._start, self._before = time.perf_counter(), self._spent()

    def cores(self) -> float:
        return max(0.0, self._spent() - self._before) / (time.perf_counter() - self._start)

    def _spent(self) -> float:
        """Seconds of processor time of all others, those among them that a hypervisor kept."""
        fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        idle = fields[3] + fields[4]
        mine = 0
        for process in self._own:
            after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            mine += sum(int(value) for value in after_name[11:13])
        return (sum(fields) - idle - mine) / os.sysconf("SC_CLK_TCK")


def wait_for_quiet(most: float) -> None:
    """Until others take next to nothing, for `most` seconds at most."""
    end = time.perf_counter() + most
    while time.perf_counter() < end:
        others = Others()
        time.sleep(2)
        if others.cores() <= QUIET:
            return


def memory(process: int) -> dict[str, int]:
    """Bytes that a process and its children have resident now, those among them that no file backs, and the most that
    they ever had, pages of files among them (each one's own most).
    """
    found = {"resident": 0, "anonymous": 0, "peak": 0}
    for number in _family(process):
        with suppress(FileNotFoundError, ProcessLookupError):
            now = _lines(number, "smaps_rollup")
            found["resident"] += now["Rss"]
            found["anonymous"] += now["Anonymous"]
            found["peak"] += _lines(number, "status")["VmHWM"]
    return found


def read_through(path: Path) -> None:
    """Bring a file, or the files of a folder, into the page cache."""
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        with file.open("rb", buffering=0) as opened:
            while opened.read(1 << 24):
                pass


def processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _family(process: int) -> Iterator[int]:
    yield process
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in file.read_text().split():
                yield from _family(int(child))


def _lines(process: int, name: str) -> dict[str, int]:
    """The sizes in a file of a process, in bytes."""
    rows = [line.split() for line in Path(f"/proc/{process}/{name}").read_text().splitlines()]
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) == 3 and row[2] == "kB"}
