"""What runs in a process of its own, because it may be killed, hang, or eat the memory: `python child.py TASK ...`.

Each task writes one JSON document to its standard output.
"""

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus
import torch

from bestiary.checkpoints.safetensors_file import SafetensorsFile
from bestiary.errors import CheckpointError

MEGA = 1 << 20


def status(key: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def attempt(path: Path) -> str:
    """The class of the error that opening and reading everything gives, or "opened"."""
    try:
        with SafetensorsFile(path) as opened:
            for name in opened.header.entries:
                opened.read(name).clone()
                opened.release()
    except Exception as error:
        return f"{type(error).__module__}.{type(error).__name__}: {error}"
    return "opened"


def hostile(folder: str) -> dict[str, Any]:
    """Every case of the corpus and every prefix of a sound file, under a limit of address space."""
    limit = status("VmSize") + 1024 * MEGA
    path = Path(folder, "case.safetensors")
    results: list[dict[str, Any]] = []
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for case in corpus.cases():
        path.write_bytes(case.content)
        size = len(case.content)
        del case
        reset_peak()
        before, begin = status("VmRSS"), time.perf_counter()
        outcome = attempt(path)
        seconds = time.perf_counter() - begin
        peak = status("VmHWM") - before
        results.append({"outcome": outcome[:2000], "seconds": seconds, "peak": peak, "size": size})
    prefixes = []
    for length in range(len(corpus.VALID)):
        path.write_bytes(corpus.VALID[:length])
        prefixes.append(attempt(path).partition(":")[0])
    return {"cases": results, "prefixes": prefixes}


def memory(path: str) -> dict[str, int]:
    """Peak resident bytes above the beginning: tensor by tensor with `release`, and without it."""
    result = {}
    for release in (True, False):
        with SafetensorsFile(path) as opened:
            reset_peak()
            before = status("VmRSS")
            for name in opened.header.entries:
                opened.read(name).sum()
                if release:
                    opened.release()
            result["released" if release else "kept"] = status("VmHWM") - before
            result["largest"] = max(entry.end - entry.start for entry in opened.header.entries.values())
    return result


def truncation(folder: str, trials: str) -> dict[str, int]:
    """Truncate a file at random moments under a process that reads it over and over; count how that one ends."""
    torch.set_num_threads(1)  # forks follow
    choice = random.Random(4)
    count, values = 24, 40_000
    counts: dict[str, int] = {}
    for trial in range(int(trials)):
        path = Path(folder, f"{trial}.safetensors")
        header = {
            str(number): corpus.entry("I32", [values], [number * values * 4, (number + 1) * values * 4])
            for number in range(count)
        }
        data = b"".join((number + 1).to_bytes(4, "little") * values for number in range(count))
        path.write_bytes(corpus.file(header, data))
        reader, writer = os.pipe()
        process = os.fork()
        if process == 0:
            os._exit(_read_over_and_over(path, writer))
        os.read(reader, 1)
        time.sleep(choice.random() * 0.01)
        os.truncate(path, choice.randrange(0, path.stat().st_size))
        _, end = os.waitpid(process, 0)
        os.close(reader)
        os.close(writer)
        code = os.waitstatus_to_exitcode(end)
        outcome = {3: "CheckpointError", 4: "wrong data", -signal.SIGBUS: "SIGBUS"}.get(code, f"exit {code}")
        counts[outcome] = counts.get(outcome, 0) + 1
        path.unlink()
    return counts


def _read_over_and_over(path: Path, started: int) -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        opened = SafetensorsFile(path)
        os.write(started, b".")
        for _ in range(1_000_000):
            for number, name in enumerate(opened.header.entries):
                copy = opened.read(name).clone()
                opened.release()
                if not bool((copy == number + 1).all()):
                    return 4
    except CheckpointError:
        return 3
    except BaseException:  # a fork must not return into the tests
        return 5
    return 6


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    tasks: dict[str, Callable[..., Any]] = {"hostile": hostile, "memory": memory, "truncation": truncation}
    answer = tasks[task](*arguments)
    sys.stdout.write(json.dumps(answer))
