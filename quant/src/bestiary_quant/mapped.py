"""A file mapped into memory for reading, and watched for changes."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bestiary.errors import CheckpointError

if TYPE_CHECKING:
    import torch


class MappedFile:
    """The bytes of a weight file, read when they are touched.  Raises CheckpointError for what cannot be mapped.

    The file must not change while it is open or while tensors view it: a truncation takes pages away, and touching
    one of them ends the process with SIGBUS, which nothing in it can prevent.  `check_unchanged` sees a change that
    has already happened.
    """

    def __init__(self, path: str | os.PathLike[str], origin: str | None = None) -> None:
        self.path, self.origin = path, str(path) if origin is None else origin
        self._read = False
        try:
            # Not blocking, because opening a pipe in place of a file would wait for ever.
            self._file = open(  # noqa: SIM115  (closed by `close`)
                Path(path),
                "rb",
                buffering=0,
                opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)),
            )
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        try:
            status = os.fstat(self._file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(
                    "This is not a regular file.", where=self.origin, fix="name the weight file itself"
                )
            if not status.st_size:
                raise CheckpointError("The file is empty.", where=self.origin, fix="fetch it again")
            self.size, self._changed = status.st_size, status.st_mtime_ns
            self.buffer: mmap.mmap = mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ)
        except (OSError, ValueError, OverflowError) as error:
            self._file.close()
            raise self._unreadable(error) from error
        except BaseException:
            self._file.close()
            raise

    @property
    def identity(self) -> str:
        """Which file this is, and in which state: of a blob of the hub's cache its name, which is its hash."""
        blob = Path(os.path.realpath(self.path)).name
        if len(blob) == 64 and set(blob) <= set("0123456789abcdef"):
            return blob
        return f"{os.path.realpath(self.path)} {self.size} {self._changed}"

    def tensor(self, start: int, end: int) -> torch.Tensor:
        """Bytes [start, end) as a uint8 tensor that views the file: never write to it, for the pages are read-only."""
        import numpy
        import torch

        if self._file.closed:
            raise CheckpointError("A tensor was asked for after the file was closed.", where=self.origin)
        self.check_unchanged()
        self._read = True
        return torch.from_numpy(numpy.asarray(_Pages(self.buffer, start, end)))

    def prefetch(self, start: int, end: int) -> None:
        """Let the system read bytes [start, end) ahead, where it can."""
        if not self._file.closed and hasattr(self.buffer, "madvise") and hasattr(mmap, "MADV_WILLNEED"):
            first = start - start % mmap.PAGESIZE
            self.buffer.madvise(mmap.MADV_WILLNEED, first, max(end - first, 1))

    def release(self) -> None:
        """Give the resident pages back, which views read again.  Raises CheckpointError if the file changed."""
        if self._file.closed or not self._read:
            return
        if hasattr(self.buffer, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self.buffer.madvise(mmap.MADV_DONTNEED)
        self.check_unchanged()

    def close(self) -> None:
        """Close the file; the map itself lives until the last tensor that views it is gone."""
        self._file.close()

    def check_unchanged(self) -> None:
        """Raises CheckpointError if the file is no longer the one that was opened."""
        status = os.fstat(self._file.fileno())
        if status.st_size != self.size or status.st_mtime_ns != self._changed:
            how = f"from {self.size} to {status.st_size} bytes" if status.st_size != self.size else "in place"
            raise CheckpointError(
                f"The file changed {how} while it was open.",
                where=self.origin,
                fix="wait until nothing writes to it any more, then load it again",
            )

    def _unreadable(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"The file cannot be read: {getattr(error, 'strerror', None) or error}.",
            where=self.origin,
            fix="check that it exists and may be read; many shards may need a higher `ulimit -n`",
        )


class _Pages:
    """Shows a part of a map to NumPy as memory that may be written, which it may not.

    torch warns, once in a process, about each buffer that is not writable.  Silencing that through `warnings` changes
    the filters of all threads; here the warning has no reason to arise, and the pages themselves refuse a write.
    """

    def __init__(self, pages: mmap.mmap, start: int, end: int) -> None:
        import numpy

        self._view = numpy.frombuffer(pages, dtype=numpy.uint8, count=end - start, offset=start)
        self.__array_interface__: dict[str, Any] = {
            **self._view.__array_interface__,
            "data": (self._view.ctypes.data, False),
        }
