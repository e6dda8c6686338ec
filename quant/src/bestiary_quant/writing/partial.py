"""Files that are there whole or not at all: written beside their place, and put there at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from bestiary.errors import CheckpointError, OptionError


class PartialFiles:
    """A context: `finish` gives the files their names, and an error or Ctrl-C before that removes them."""

    def __init__(self) -> None:
        self._open: dict[Path, tuple[Path, BinaryIO]] = {}
        self._finished = False

    def __enter__(self) -> PartialFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._finished:
            return
        for temporary, file in self._open.values():
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                temporary.unlink()

    def open(self, path: Path) -> BinaryIO:
        """A new file that will be `path`, in a folder that is made where it is absent.  Raises CheckpointError."""
        if path in self._open:
            raise CheckpointError("The file would be written twice.", where=path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = temporary.open("wb")
        self._open[path] = temporary, file
        return file

    def renamed(self, path: Path, other: Path) -> None:
        """`path`, which was opened, will be `other`."""
        self._open[other] = self._open.pop(path)

    def write(self, path: Path, content: bytes) -> None:
        """A small file in one go."""
        file = self.open(path)
        with told(path):
            file.write(content)

    def finish(self) -> Mapping[Path, int]:
        """Close all files and give them their names; what they replace is gone.  The sizes in bytes, by path."""
        sizes = {}
        for path, (temporary, file) in self._open.items():
            with told(path):
                file.close()
                sizes[path] = temporary.stat().st_size
        for path, (temporary, _) in self._open.items():
            with told(path):
                temporary.replace(path)
        self._finished = True
        return sizes


def check_absent(paths: Iterator[Path] | list[Path], force: bool) -> None:
    """Raises OptionError where one of the files exists, unless `force` allows that it is replaced."""
    found = [path for path in paths if path.exists()]
    if found and not force:
        raise OptionError(
            f"{found[0].name} exists already." if len(found) == 1 else f"{len(found)} of the files exist already.",
            where=found[0].parent,
            fix="--force replaces them, -o writes elsewhere",
        )


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turns what the system says about a file that is written into a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"The file cannot be written: {error.strerror or error}.",
            where=path,
            fix="nothing is left behind; check the free space and the rights of the folder, or write elsewhere with -o",
        ) from error
