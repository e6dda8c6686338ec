"""What a source hands over (Repository) and what a loader opens (Checkpoint): the two shapes that plugins implement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from bestiary.nn.packed import Packed
    from bestiary.pulling import Puller
    from bestiary.records import Packing, Progress


class Repository(Protocol):
    """The files of one model, wherever they lie.  Names are relative, with forward slashes."""

    id: str
    """The id as the user gave it."""
    origin: str
    """For messages: a folder, or a hub id with the commit that it resolved to."""
    local: bool
    """Whether every file lies on this machine already."""

    def files(self) -> Mapping[str, int]:
        """Every file with its size in bytes, without fetching any."""

    def path(self, name: str) -> Path:
        """The local, verified path of one file; fetches it where it is remote.  Raises ModelNotFound."""

    def head(self, name: str, length: int) -> bytes:
        """The first `length` bytes of a file (fewer where it is shorter), without fetching the rest."""

    def fetch(self, names: Iterable[str], progress: Callable[[Progress], None] | None = None) -> None:
        """Bring several files here, so that `path` answers at once."""

    def missing(self, names: Iterable[str]) -> Mapping[str, int]:
        """Those of `names` that would have to be fetched, with their sizes in bytes."""

    def verify(self, names: Iterable[str]) -> Mapping[str, str]:
        """Hash files that are here, whatever was remembered of them: by name, what they were compared with.

        A source without hashes leaves names out.  Raises CorruptDownload.
        """


class Checkpoint(Protocol):
    """The tensors of a model, opened but not read."""

    config: Mapping[str, Any]
    """Configuration carried by the weight file itself; empty for formats that have a config.json."""
    origin: str

    def names(self) -> tuple[str, ...]:
        """Every tensor name, in file order."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises CheckpointError for an unknown name, with the nearest ones."""

    def dtype(self, name: str) -> str:
        """The stored type, in safetensors spelling ("F32", "BF16") or the format's own name."""

    def nbytes(self, name: str) -> int:
        """Bytes in the file."""

    def read(self, name: str) -> torch.Tensor:
        """The tensor; it may view the file, and is never written to.  Raises CheckpointError.

        It stays good until `close`.  Whether its numbers are those of an unchanged file, the next `release` tells.
        """

    def release(self) -> None:
        """Give back the memory of what was read so far; what views the file is read again when it is touched.

        Raises CheckpointError if the file changed.
        """

    def close(self) -> None:
        """Release the files."""


class PackedCheckpoint(Checkpoint, Protocol):
    """What a checkpoint of a format that packs weights has besides; a checkpoint may have either or none of them."""

    gguf: str | None
    """`general.architecture` of a GGUF file, by which `Architecture.gguf` has rules of its own."""
    identity: str | None
    """Differs for files that differ, so that what is made of them may be kept; None: nothing may."""

    def packed(self, name: str) -> Packed | None:
        """The tensor as the format packs it, for as long as the model lives; None where `read` is the way to it."""

    def prefetch(self, names: Iterable[str]) -> None:
        """Let the system read these tensors ahead, for they will be read next; neither waits nor takes memory."""


class PackingPlan(Protocol):
    """How the weights of one model are to be packed: judged before any is read, and then done."""

    @property
    def assigned(self) -> Mapping[str, Packing]:
        """What becomes of each `Site`, by parameter name."""

    def weights(self, puller: Puller) -> Iterator[tuple[str, torch.Tensor | Packed]]:
        """Every parameter that `puller` knows, exactly once and in any order, packed or plain."""
