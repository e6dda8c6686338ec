"""The compiled library, and how its operations are called.

It has a plain C interface and is loaded with ctypes, so that one build serves every version of Python and torch.  The
lock of the interpreter is released while an operation runs.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol

VERSION = 3
"""Of the interface; a library of another one is not used."""

NAMES = ("libbestiary_kernels.so", "libbestiary_kernels.dylib", "bestiary_kernels.dll")


class Recorder(Protocol):
    """Who wants to know of every call of a thread."""

    def called(self, operation: int, arguments: bytes) -> None:
        """An operation is about to run."""


_recorders = threading.local()


def current() -> Recorder | None:
    """Who records the calls of this thread."""
    return getattr(_recorders, "current", None)


@contextmanager
def recorded(recorder: Recorder) -> Iterator[None]:
    """Tell `recorder` of the calls that this thread makes meanwhile."""
    _recorders.current = recorder
    try:
        yield
    finally:
        _recorders.current = None


class LibraryMissing(Exception):
    """Says why there is no library to call."""


@dataclass(frozen=True)
class Library:
    """The operations of one instruction set."""

    instruction_set: str
    call: Callable[[int, bytes, int], None]
    """call(operation, arguments, threads): runs one operation, and returns when it is done."""
    run: Callable[[ctypes.Array[ctypes.c_int64], int, int], None]
    """run(calls, count, threads): runs pairs of an operation and the address of its arguments, one after another."""


def find() -> Path:
    """The compiled library, or what BESTIARY_KERNELS_LIBRARY names.  Raises LibraryMissing where there is none."""
    named = os.environ.get("BESTIARY_KERNELS_LIBRARY")
    if named:
        return Path(named)
    # Installed in place, the package has a folder of sources and one of what was built.
    for folder in map(Path, import_module("bestiary_kernels.cpu").__path__):
        for name in NAMES:
            if (folder / name).is_file():
                return folder / name
    raise LibraryMissing("it was not built: install a C++ compiler and install bestiary-kernels again")


@cache
def opened(path: Path) -> ctypes.CDLL:
    """The library, with the types of its functions.  Raises LibraryMissing where it cannot be loaded."""
    try:
        library = ctypes.CDLL(str(path))
        library.bestiary_version.restype = ctypes.c_int64
        version = library.bestiary_version()
    except (OSError, AttributeError) as error:
        raise LibraryMissing(f"it cannot be loaded: {error}") from error
    if version != VERSION:
        raise LibraryMissing(f"its interface is {version}, and {VERSION} is due: install bestiary-kernels again")
    library.bestiary_instruction_set.argtypes = [ctypes.c_int64]
    library.bestiary_instruction_set.restype = ctypes.c_char_p
    library.bestiary_operations.argtypes = [ctypes.c_char_p]
    library.bestiary_operations.restype = ctypes.c_void_p
    library.bestiary_run.restype = library.bestiary_call.restype = None
    return library


def instruction_sets(path: Path | None = None) -> tuple[str, ...]:
    """Those that the library has and the processor can run, the best first."""
    library = opened(path or find())
    found: list[str] = []
    while name := library.bestiary_instruction_set(len(found)):
        found.append(name.decode())
    return tuple(found)


@cache
def library(instruction_set: str | None = None) -> Library:
    """The operations of an instruction set, by default of the best.  Raises LibraryMissing."""
    name = instruction_set or instruction_sets()[0]
    native = opened(find())
    operations = native.bestiary_operations(name.encode())
    if operations is None:
        raise LibraryMissing(f"this processor has no {name}; it has {', '.join(instruction_sets())}")
    table = ctypes.c_void_p(operations)
    call_native, run_native = native.bestiary_call, native.bestiary_run
    number, text, pointer = ctypes.c_int64, ctypes.c_char_p, ctypes.c_void_p
    call_native.argtypes = [pointer, number, text, number]
    run_native.argtypes = [pointer, pointer, number, number]

    def call(operation: int, arguments: bytes, threads: int) -> None:
        recorder = current()
        if recorder is not None:
            recorder.called(operation, arguments)
        call_native(table, operation, arguments, threads)

    def run(calls: ctypes.Array[ctypes.c_int64], count: int, threads: int) -> None:
        run_native(table, calls, count, threads)

    return Library(name, call, run)


def packer(layout: str) -> Callable[..., bytes]:
    """Arguments as the library reads them: 8 bytes each, "q" a whole number or an address, "d" a float."""
    return struct.Struct(layout).pack


def addresses(calls: Sequence[tuple[int, bytes]]) -> tuple[ctypes.Array[ctypes.c_int64], list[object]]:
    """Calls as `Library.run` takes them, and what must be kept for as long as they are."""
    kept = [ctypes.create_string_buffer(arguments, len(arguments)) for _, arguments in calls]
    flat = (ctypes.c_int64 * (2 * len(calls)))()
    for place, ((operation, _), buffer) in enumerate(zip(calls, kept, strict=True)):
        flat[2 * place], flat[2 * place + 1] = operation, ctypes.addressof(buffer)
    return flat, list(kept)
