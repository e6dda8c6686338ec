"""A checkpoint whose packed groups appear as one weight each: a `bestiary.protocols.PackedCheckpoint`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bestiary.errors import CheckpointError
from bestiary.protocols import Checkpoint
from bestiary_quant.checkpoints.stored import Group

if TYPE_CHECKING:
    import torch

    from bestiary_quant.checkpoints.coded import CodedMatrix, CodedStack


class QuantizedCheckpoint:
    """The weights of `groups` under their plain names, and every other tensor as it is.

    A weight can be had packed (`packed`), for as long as the file does not change, or as plain numbers (`read`).
    """

    gguf: str | None = None

    def __init__(self, base: Checkpoint, groups: Iterable[Group], unused: Collection[str] = ()) -> None:
        """`unused` names tensors that no weight needs, such as the scales of a quantised cache."""
        self.origin: str = base.origin
        self.config: Mapping[str, Any] = base.config
        self.unused = tuple(unused)
        self._base = base
        self._groups: dict[str, Group] = {}
        first: dict[str, str] = {}
        hidden = set(unused)
        for group in groups:
            members = list(group.parts.values())
            if group.name in self._groups:
                raise CheckpointError(f"Two packed tensors would be the weight {group.name!r}.", where=base.origin)
            first[members[0]] = group.name
            hidden.update(members)
            self._groups[group.name] = group
        self._names: dict[str, None] = {}
        for name in base.names():
            plain = first.get(name) if name in hidden else name
            if plain in self._names:
                raise CheckpointError(f"The weight {plain!r} is stored twice, packed and plain.", where=base.origin)
            if plain is not None:
                self._names[plain] = None

    def names(self) -> tuple[str, ...]:
        """Every weight, in the order of the file."""
        return tuple(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """In numbers: [out, in] for a packed weight, [experts, out, in] for a packed stack."""
        group = self._groups.get(name)
        return self._plain(name).shape(name) if group is None else group.shape

    def dtype(self, name: str) -> str:
        """The stored type, or how the weight is packed ("GPTQ4", "NVFP4")."""
        group = self._groups.get(name)
        return self._plain(name).dtype(name) if group is None else group.kind

    def nbytes(self, name: str) -> int:
        """Bytes in the file; of a packed weight those of all its parts."""
        group = self._groups.get(name)
        if group is None:
            return self._plain(name).nbytes(name)
        return sum(self._base.nbytes(member) for member in group.parts.values())

    def read(self, name: str) -> torch.Tensor:
        """The tensor as the checkpoint below has it, or the plain numbers of a packed weight in float32."""
        packed = self.packed(name)
        return self._plain(name).read(name) if packed is None else packed.dequantize()

    def packed(self, name: str) -> CodedMatrix | CodedStack | None:
        """The weight as it is packed; None where it is stored plainly.  Raises CheckpointError for damaged parts."""
        group = self._groups.get(name)
        return None if group is None else group.make(lambda role: self._base.read(group.parts[role]))

    def release(self) -> None:
        """Give back the memory of what was read so far."""
        self._base.release()

    def close(self) -> None:
        """Release the files; weights still in use keep their map."""
        self._base.close()

    def _plain(self, name: str) -> Checkpoint:
        if name not in self._names:
            near = [known for known in self._names if known.rpartition(".")[0] == name.rpartition(".")[0]][:3]
            raise CheckpointError(
                f"The checkpoint has no weight {name[:1024]!r}"
                + (f"; its neighbours are {', '.join(near)}." if near else "."),
                where=self.origin,
            )
        return self._base
