"""One safetensors file, memory-mapped: its tensors are views on the file, read when they are touched."""

import mmap
import os
import stat
import sys
from contextlib import suppress
from typing import Any

import numpy
import torch

from bestiary.checkpoints.safetensors_header import FIRST_READ, Entry, extent, parse
from bestiary.closing import Closing
from bestiary.errors import CheckpointError, OutOfMemory

_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
}
"""Names within torch, because an older torch lacks the last ones; torch has no type of six bits."""


class SafetensorsFile(Closing):
    """A file whose header was checked, and a map of it.

    The file must not change while it is open.  Its size and time of change are looked at before each `read` and in
    each `release`, and a change is a CheckpointError.  Between these looks a window remains that nothing in this
    process can close: touching a page that a truncation has just taken away ends the process with SIGBUS, and the last
    page that is left reads as zeros behind the new end.  So a tensor that was copied counts as read only after the
    `release` that follows it has returned.
    """

    def __init__(self, path: str | os.PathLike[str], origin: str | None = None) -> None:
        self.origin = str(path) if origin is None else origin
        self._map: mmap.mmap | None = None
        self._bytes: torch.Tensor | None = None
        self._read = False
        if sys.byteorder != "little":
            raise CheckpointError("Safetensors are little-endian, and this machine is not", where=self.origin)
        try:
            # Not blocking, because opening a pipe in place of a file would wait for ever.
            self._file = open(  # noqa: SIM115  (closed by `close`)
                path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
            )
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        status = os.fstat(self._file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError("This is not a regular file", where=self.origin, fix="name the weight file itself")
        self._size, self._changed = status.st_size, status.st_mtime_ns
        try:
            head = self._head(min(FIRST_READ, self._size))
            need = extent(head, self._size, self.origin)
            self.header = parse(head if len(head) >= need else self._head(need), self._size, self.origin)
            self._map = mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ)
        except (OSError, ValueError, OverflowError) as error:
            raise self._unreadable(error) from error
        except MemoryError as error:
            raise OutOfMemory("The header of the file does not fit the memory", where=self.origin) from error
        self._bytes = torch.from_numpy(numpy.asarray(_Pages(self._map)))

    def _head(self, length: int) -> bytes:
        self._file.seek(0)
        parts = []
        while length > 0 and (part := self._file.read(length)):
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def read(self, name: str) -> torch.Tensor:
        """The tensor as a view on the file: never write to it (the pages are read-only: the process would end).

        Data that is not aligned to its type is copied.  F4 comes as torch holds it, two numbers in an element, so its
        last dimension is half of the one in the header.  Raises CheckpointError for a type that this torch lacks, for
        a BOOL byte other than 0 and 1, and if the file changed since it was opened; KeyError for an unknown name.
        """
        entry = self.header.entries[name]
        if self._bytes is None:
            raise CheckpointError(f"Tensor {name!r} was asked for after the file was closed", where=self.origin)
        self._check_unchanged()
        kind = self._type(name, entry)
        shape = entry.shape
        if entry.dtype == "F4":
            if not shape or shape[-1] % 2:
                raise CheckpointError(
                    f"Tensor {name!r} of type F4 and shape {list(shape)} cannot be held: "
                    "torch pairs the numbers of the last dimension",
                    where=self.origin,
                )
            shape = (*shape[:-1], shape[-1] // 2)
        if entry.start == entry.end:
            return torch.empty(shape, dtype=kind)
        self._read = True
        data = self._bytes[entry.start : entry.end]
        if entry.start % kind.itemsize:
            data = data.clone()
        if kind == torch.bool and int(data.max()) > 1:
            raise CheckpointError(
                f"Tensor {name!r} of type BOOL holds the byte {int(data.max())}, and torch knows 0 and 1 only",
                where=self.origin,
                fix="convert the file again",
            )
        return data.view(kind).reshape(shape)

    def prefetch(self, name: str) -> None:
        """Let the system read a tensor ahead, where it can."""
        entry = self.header.entries[name]
        if self._map is not None and hasattr(self._map, "madvise") and hasattr(mmap, "MADV_WILLNEED"):
            first = entry.start - entry.start % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, first, max(entry.end - first, 1))

    def _type(self, name: str, entry: Entry) -> torch.dtype:
        kind = getattr(torch, _TYPES.get(entry.dtype, ""), None)
        if not isinstance(kind, torch.dtype):
            raise CheckpointError(
                f"Tensor {name!r} has type {entry.dtype}, which torch {torch.__version__} does not have",
                where=self.origin,
                fix="use a newer torch, or the checkpoint in another type",
            )
        return kind

    def release(self) -> None:
        """Give the resident pages back, and raise CheckpointError if the file changed since it was opened.

        Tensors that `read` returned stay valid memory, and would be read from the disk again.
        """
        if self._map is None or not self._read:
            return
        if hasattr(self._map, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        self._check_unchanged()

    def close(self) -> None:
        """Close the file; the map itself lives until the last tensor that views it is gone."""
        self._bytes = None
        if self._map is not None:
            with suppress(BufferError):  # tensors still view it: the last of them unmaps it
                self._map.close()
            self._map = None
        self._file.close()

    def _check_unchanged(self) -> None:
        status = os.fstat(self._file.fileno())
        if status.st_size != self._size or status.st_mtime_ns != self._changed:
            how = f"from {self._size} to {status.st_size} bytes" if status.st_size != self._size else "in place"
            raise CheckpointError(
                f"The file changed {how} while it was open",
                where=self.origin,
                fix="wait until nothing writes to it any more, then load it again",
            )

    def _unreadable(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"The file cannot be read: {getattr(error, 'strerror', None) or error}",
            where=self.origin,
            fix="check that it exists and may be read; many shards may need a higher `ulimit -n`",
        )


class _Pages:
    """Shows a map to NumPy as memory that may be written, which it may not.

    torch warns, once in a process, about each buffer that is not writable.  Silencing that through `warnings` changes
    the filters of all threads; here the warning has no reason to arise, and the pages themselves refuse a write.
    """

    def __init__(self, pages: mmap.mmap) -> None:
        self._view = numpy.frombuffer(pages, dtype=numpy.uint8)
        self.__array_interface__: dict[str, Any] = {
            **self._view.__array_interface__,
            "data": (self._view.ctypes.data, False),
        }
