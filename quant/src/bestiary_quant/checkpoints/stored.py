"""The tensors of a checkpoint as their headers show them, and the weights that are found among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bestiary.errors import CheckpointError
from bestiary.protocols import Checkpoint

if TYPE_CHECKING:
    import torch

    from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack

FLOATS = ("F32", "F16", "BF16")
FLOAT8 = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")


@dataclass(frozen=True)
class Group:
    """The tensors of a file that make one packed weight, judged by their headers alone."""

    name: str
    """The plain name of the weight."""
    kind: str
    """What `Checkpoint.dtype` says: "GPTQ4", "NVFP4"."""
    shape: tuple[int, ...]
    """[out, in], or [experts, out, in]."""
    parts: Mapping[str, str]
    """Names in the file, by role."""
    make: Callable[[Callable[[str], torch.Tensor]], CodedMatrix | CodedStack]
    """The weight, of a function that reads a part by its role."""


class Stored:
    """The headers of a checkpoint, with checks that say what is wrong and where."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.names = dict.fromkeys(checkpoint.names())

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def before(self, *endings: str) -> Iterator[tuple[str, str]]:
        """(beginning, ending) of the names that end so."""
        for name in self.names:
            for ending in endings:
                if name.endswith(ending):
                    yield name[: -len(ending)], ending

    def one_of(self, names: Iterable[str], of: str, what: str) -> str:
        """The name that is there.  Raises CheckpointError where none or several are: `of` lacks `what`."""
        known = tuple(names)
        found = [name for name in known if name in self.names]
        if len(found) != 1:
            how = f"several {what} ({', '.join(found)})" if found else f"no {what} ({' or '.join(known)})"
            raise self.error(f"The packed tensor {of!r} has {how}.")
        return found[0]

    def shape(self, name: str, *dimensions: int) -> tuple[int, ...]:
        """The shape of a tensor that has so many dimensions, none of them 0.  Raises CheckpointError."""
        if name not in self.names:
            raise self.error(f"The tensor {name!r} is missing.")
        shape = tuple(self.checkpoint.shape(name))
        if len(shape) not in dimensions or 0 in shape:
            due = " or ".join(map(str, dimensions))
            raise self.error(f"The tensor {name!r} has the shape {list(shape)}; {due} dimensions, none empty, are due.")
        return shape

    def dtype(self, name: str, *types: str) -> str:
        """The stored type, one of `types`.  Raises CheckpointError."""
        if name not in self.names:
            raise self.error(f"The tensor {name!r} is missing.")
        found = self.checkpoint.dtype(name)
        if found not in types:
            raise self.error(f"The tensor {name!r} has the type {found}; {' or '.join(types)} is due.")
        return found

    def check(self, name: str, types: tuple[str, ...], shape: tuple[int, ...]) -> None:
        """Raises CheckpointError unless there is a tensor of one of these types and of this shape."""
        self.dtype(name, *types)
        found = tuple(self.checkpoint.shape(name))
        if found != shape:
            raise self.error(f"The tensor {name!r} has the shape {list(found)}; by the others it is {list(shape)}.")

    def present(self, names: Iterable[str]) -> dict[str, str]:
        """Those of the names that are there, as parts that are called as they are named."""
        return {name: name for name in names if name in self.names}

    def small(self, name: str, most: int) -> torch.Tensor:
        """The data of a tensor that describes others.  Raises CheckpointError for one of more than `most` bytes."""
        size = self.checkpoint.nbytes(name)
        if size > most:
            raise self.error(f"The tensor {name!r} has {size} bytes; it describes others, in at most {most}.")
        return self.checkpoint.read(name)

    def error(self, what: str, fix: str | None = None) -> CheckpointError:
        """An error that says in which checkpoint."""
        return CheckpointError(what, where=self.checkpoint.origin, fix=fix)
