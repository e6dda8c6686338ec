"""A model stored as GGUF, under the tensor names of Hugging Face checkpoints: a `bestiary.protocols.Checkpoint`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from bestiary.errors import CheckpointError
from bestiary.nearest import nearest
from bestiary.protocols import Repository
from bestiary_quant.gguf.header import Entry
from bestiary_quant.gguf.names import companion_names, hugging_face_names
from bestiary_quant.gguf.parts import Part, close_parts, read_parts

if TYPE_CHECKING:
    import torch

    from bestiary_quant.packed import PackedMatrix, PackedStack

MAX_NAMES_TO_COMPARE = 20_000
"""Beyond so many names the search for near ones would take seconds."""


class GgufCheckpoint:
    """The tensors of one or more files; those that the format packs can be had packed (`packed`) or plain (`read`)."""

    def __init__(self, origin: str, parts: Sequence[Part]) -> None:
        self.origin = origin
        self.config: Mapping[str, Any] = parts[0].header.metadata
        """The metadata as the file has it: `general.architecture`, `tokenizer.ggml.tokens` and so on."""
        self.gguf = parts[0].header.metadata.architecture
        """Which `Gguf` record of an architecture has the rules for these tensors."""
        self._parts = tuple(parts)
        self._open = all(part.mapped is not None for part in parts)
        self._places: dict[str, tuple[Part, Entry]] = {}
        for part in parts:
            named = (
                companion_names(part.header.tensors)
                if part.sees
                else hugging_face_names(part.header.tensors, self.gguf)
            )
            for stored, name in named.items():
                if name in self._places:
                    raise CheckpointError(f"Two tensors, one of them {stored!r}, would be {name!r}.", where=origin)
                self._places[name] = part, part.header.tensors[stored]

    @cached_property
    def identity(self) -> str | None:
        """A hash of which files these are, and in which state."""
        if any(part.mapped is None for part in self._parts):
            return None
        return sha256("\n".join(part.mapped.identity for part in self._parts if part.mapped).encode()).hexdigest()

    def names(self) -> tuple[str, ...]:
        """Every tensor that is a weight, by file and in the order of its header."""
        return tuple(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """In numbers, rows first, also of packed tensors."""
        return self._entry(name).shape

    def dtype(self, name: str) -> str:
        """The name that ggml gives the type: "F32", "BF16", "Q4_K"."""
        return self._entry(name).kind.name

    def nbytes(self, name: str) -> int:
        """Bytes in the file."""
        entry = self._entry(name)
        return entry.end - entry.start

    def read(self, name: str) -> torch.Tensor:
        """A view on the file where the numbers are stored plainly (never write to it), else a float32 copy."""
        import torch

        entry = self._entry(name)
        packed = self.packed(name)
        if packed is not None:
            return packed.dequantize()
        data = self._bytes(name)
        if entry.kind.decode is None:
            return data.view(getattr(torch, entry.kind.dtype or "")).view(entry.shape)
        from bestiary_quant.blocks.dequantize import dequantize

        return dequantize(data.view(*entry.shape[:-1], -1), entry.kind)

    def packed(self, name: str) -> PackedMatrix | PackedStack | None:
        """The tensor in the blocks of the file; None where it is stored plainly, or is neither a matrix nor a stack.

        It views the file, and stays good after `release` and `close` for as long as the file does not change.
        """
        from bestiary_quant.packed import PackedMatrix, PackedStack

        entry = self._entry(name)
        if not entry.kind.packed or len(entry.shape) not in (2, 3):
            return None
        data = self._bytes(name).view(*entry.shape[:-1], entry.kind.row(entry.shape[-1]))
        return PackedMatrix(data, entry.kind) if data.ndim == 2 else PackedStack(data, entry.kind)

    def prefetch(self, names: Iterable[str]) -> None:
        """Let the system read tensors ahead, without waiting for them and without memory of this process."""
        for name in names:
            part, entry = self._place(name)
            if part.mapped is not None:
                part.mapped.prefetch(entry.start, entry.end)

    def release(self) -> None:
        """Give back the pages read so far.  Raises CheckpointError if a file changed: then copies of them are void."""
        for part in self._parts:
            if part.mapped is not None:
                part.mapped.release()

    def close(self) -> None:
        """Close all files; tensors still in use keep their map."""
        self._open = False
        close_parts(self._parts)

    def _bytes(self, name: str) -> torch.Tensor:
        part, entry = self._place(name)
        if part.mapped is None or not self._open:
            raise CheckpointError(
                f"The tensor {name!r} cannot be read: only the headers of the files were opened, or they were closed.",
                where=self.origin,
                fix="open the checkpoint itself",
            )
        return part.mapped.tensor(entry.start, entry.end)

    def _entry(self, name: str) -> Entry:
        return self._place(name)[1]

    def _place(self, name: str) -> tuple[Part, Entry]:
        place = self._places.get(name)
        if place is None:
            near = nearest(name[:1024], self._places if len(self._places) <= MAX_NAMES_TO_COMPARE else ())
            raise CheckpointError(
                f"The checkpoint has no tensor {name[:1024]!r}"
                + (f"; near names: {', '.join(near)}." if near else "."),
                where=self.origin,
                fix="check the weight rules of the architecture against `bestiary inspect`",
            )
        return place


def open(repository: Repository, names: tuple[str, ...]) -> GgufCheckpoint:
    """Map these files and check their headers; reads no tensor.  Raises CheckpointError."""
    return _checkpoint(repository, read_parts(repository, names, fetch=True))


def open_header(repository: Repository, names: tuple[str, ...]) -> GgufCheckpoint:
    """The same from the beginnings of the files: names, shapes and types before any weight is fetched."""
    return _checkpoint(repository, read_parts(repository, names, fetch=False))


def _checkpoint(repository: Repository, parts: Sequence[Part]) -> GgufCheckpoint:
    try:
        return GgufCheckpoint(repository.origin, parts)
    except BaseException:
        close_parts(parts)
        raise
