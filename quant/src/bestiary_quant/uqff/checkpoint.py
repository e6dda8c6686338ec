"""A model stored as UQFF, under the names of Hugging Face checkpoints: a `bestiary.protocols.PackedCheckpoint`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bestiary.config import read_json
from bestiary.errors import CheckpointError
from bestiary.nearest import nearest
from bestiary.protocols import Repository
from bestiary_quant.uqff.form import CONFIG
from bestiary_quant.uqff.tensors import MAX_NAMES_TO_COMPARE, UqffTensors, open_files, open_heads

if TYPE_CHECKING:
    import torch

    from bestiary.nn.packed import Packed
    from bestiary_quant.uqff.rotary import Pairs


class UqffCheckpoint:
    """The weights of a model; those that are packed can be had so (`packed`) or as plain numbers (`read`)."""

    gguf: str | None = None
    config: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, tensors: UqffTensors, pairs: Pairs | None = None) -> None:
        """Reads the descriptions of all layers.  Raises CheckpointError where they do not agree with the tensors.

        `pairs` says which rows are to be put in order.
        """
        from bestiary_quant.uqff.layers import layers

        self.origin = tensors.origin
        self.version = tensors.version
        found = tuple(layers(tensors))
        self.layers = MappingProxyType({layer.name: layer for layer in found})
        """What is stored as a layer, by the name of its weight."""
        self._tensors, self._pairs = tensors, pairs
        first = {layer.parts[0]: layer.name for layer in found}
        hidden = {part for layer in found for part in layer.parts}
        self._names: dict[str, None] = {}
        for stored in tensors.names():
            name = first.get(stored) if stored in hidden else stored
            if name is not None and name in self._names:
                raise CheckpointError(f"Two tensors, one of them {stored!r}, would be {name!r}.", where=self.origin)
            if name is not None:
                self._names[name] = None

    def names(self) -> tuple[str, ...]:
        """Every weight and bias, by file and then in the order of their bytes."""
        return tuple(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """In numbers: [out, in], or [experts, out, in], of a layer."""
        layer = self.layers.get(name)
        return self._plain(name).shape(name) if layer is None else layer.weight.shape

    def dtype(self, name: str) -> str:
        """The stored type: "BF16", "Q4_K", "AFQ4", "HQQ8", "FP8", "F8Q8", "MXFP4"."""
        layer = self.layers.get(name)
        return self._plain(name).dtype(name) if layer is None else layer.weight.kind

    def nbytes(self, name: str) -> int:
        """Bytes in the file; of a layer those of all its parts."""
        layer = self.layers.get(name)
        if layer is None:
            return self._plain(name).nbytes(name)
        return sum(self._tensors.nbytes(part) for part in layer.parts)

    def read(self, name: str) -> torch.Tensor:
        """A view on the file where the numbers are stored plainly (never write to it), else a float32 copy."""
        packed = self.packed(name)
        if packed is not None:
            return packed.dequantize()
        layer = self.layers.get(name)
        if layer is None or layer.weight.plain is None:
            tensor = self._plain(name).read(name)
        else:
            tensor = layer.weight.plain(self._tensors.read)
        order = self._order(name)
        return tensor if order is None else tensor[order]

    def packed(self, name: str) -> Packed | None:
        """The weight as the file packs it; None where it is stored plainly.

        It views the file, except for HQQ of less than eight bits, whose codes are packed anew, for rows of F8Q8 that
        are no multiple of 32, and for rows that are put in order.  It stays good after `release` and `close` while the
        file does not change.
        """
        layer = self.layers.get(name)
        if layer is None:
            self._plain(name)
            return None
        from bestiary.nn.packed import is_weight

        made = None if layer.weight.packed is None else layer.weight.packed(self._tensors.read)
        order = self._order(name)
        return made.rows(order) if order is not None and is_weight(made) else made

    def release(self) -> None:
        """Give back the pages read so far.  Raises CheckpointError if a file changed: then copies of them are void."""
        self._tensors.release()

    def close(self) -> None:
        """Close all files; weights still in use keep their map."""
        self._tensors.close()

    def _order(self, name: str) -> torch.Tensor | None:
        return None if self._pairs is None else self._pairs.order(name, self.shape(name)[0])

    def _plain(self, name: str) -> UqffTensors:
        if name not in self._names:
            near = nearest(name[:1024], self._names if len(self._names) <= MAX_NAMES_TO_COMPARE else ())
            raise CheckpointError(
                f"The checkpoint has no weight {name[:1024]!r}"
                + (f"; near names: {', '.join(near)}." if near else "."),
                where=self.origin,
                fix="check the weight rules of the architecture against `bestiary inspect`",
            )
        return self._tensors


def open(repository: Repository, names: tuple[str, ...]) -> UqffCheckpoint:
    """Map these files and check them; reads no weight.  Raises CheckpointError."""
    return _checkpoint(repository, open_files(repository, names))


def open_header(repository: Repository, names: tuple[str, ...]) -> UqffCheckpoint:
    """The same from the beginnings of the files, before they are fetched.

    Raises CheckpointError also where the descriptions of layers lie too far behind: only the whole files tell then.
    """
    return _checkpoint(repository, open_heads(repository, names))


def _checkpoint(repository: Repository, tensors: UqffTensors) -> UqffCheckpoint:
    from bestiary_quant.uqff.rotary import pairs

    try:
        config = read_json(repository.path(CONFIG)) if CONFIG in repository.files() else {}
        return UqffCheckpoint(tensors, pairs(config, f"{repository.origin}: {CONFIG}"))
    except BaseException:
        tensors.close()
        raise
