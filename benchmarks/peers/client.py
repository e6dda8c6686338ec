"""An engine in a process of its own, seen from here."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import IO, Any

from prompts import Prompt

FOLDER = Path(__file__).parent / "engines"
PATIENCE = 600.0
"""Seconds for any one thing that an engine is asked; then its process is ended."""


class EngineError(Exception):
    """An engine could not do what it was asked."""


@dataclass(frozen=True)
class Kind:
    """One engine: its module, the distribution that brings it, its file in `engines`, and how to install it."""

    name: str
    module: str
    distribution: str
    script: str
    install: str
    peer: bool = True
    """Whether it runs in the Python of the peers."""
    folder: bool = False
    """Whether it reads the folder of Hugging Face, and so bfloat16 alone."""


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "bestiary",
            "bestiary",
            "bestiary-core",
            "bestiary_engine.py",
            "pip install bestiary-llama bestiary-qwen bestiary-quant",
            peer=False,
        ),
        Kind(
            "llama_cpp",
            "llama_cpp",
            "llama-cpp-python",
            "llama_cpp_engine.py",
            'CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary llama-cpp-python llama-cpp-python',
        ),
        Kind("mistralrs", "mistralrs", "mistralrs", "mistralrs_engine.py", "pip install mistralrs"),
        Kind(
            "transformers",
            "transformers",
            "transformers",
            "transformers_engine.py",
            "pip install torch transformers",
            folder=True,
        ),
    )
}


def version(kind: Kind, python: str) -> str | None:
    """The version that is installed for a Python; None: it is not."""
    code = (
        "from importlib.util import find_spec; from importlib.metadata import version\n"
        f"print(version({kind.distribution!r}) if find_spec({kind.module!r}) else '')"
    )
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=FOLDER.parent)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


@contextmanager
def running(kind: Kind, python: str, threads: int) -> Iterator[Client]:
    """Start an engine; its process is ended with the context."""
    count = str(threads)
    own = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "RAYON_NUM_THREADS": count}
    own |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            [python, str(FOLDER / kind.script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, **own},
        )
        try:
            yield Client(process, said, start)
        finally:
            process.kill()
            process.communicate()


class Client:
    """Asks it, one thing after the other."""

    def __init__(self, process: subprocess.Popen[str], said: IO[str], started: float) -> None:
        self._process, self._said = process, said
        self.started = started
        """By `time.perf_counter`."""
        self.pid = process.pid

    def load(self, path: Path, threads: int, context: int, together: int) -> None:
        self._ask(do="load", path=str(path), threads=threads, context=context, together=together)

    def check(self, prompt: Prompt) -> dict[str, Any]:
        """The most probable token after a prompt, as text, and its log-probability."""
        found: dict[str, Any] = self._ask(do="check", prompt=prompt)
        return found

    def answer(self, prompts: Sequence[Prompt], count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask(do="answer", prompts=prompts, count=count)
        for answer, prompt in zip(found, prompts, strict=True):
            if answer["tokens"] != count or answer["prompt"] != len(prompt["tokens"]):
                raise EngineError(
                    f"{answer['tokens']} tokens came for a prompt of {answer['prompt']}; "
                    f"{count} for one of {len(prompt['tokens'])} were asked for"
                )
        return found

    def _ask(self, **asked: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        timer = Timer(PATIENCE, self._process.kill)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            raise EngineError(f"the process ended: {self._last_words()}")
        reply = json.loads(line)
        if "error" in reply:
            raise EngineError(reply["error"])
        return reply["found"]

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return lines[-1][-300:] if lines else "it said nothing"
