"""A checkpoint of names and shapes without data, for checking plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bestiary.config import Config
from bestiary.errors import CheckpointError
from bestiary.records import Architecture
from bestiary.weights import Plan, plan


class HeaderList:
    """A `Checkpoint` that can be planned but not read."""

    config: Mapping[str, Any] = {}

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], origin: str = "a list of headers") -> None:
        self.shapes, self.origin = dict(shapes), origin

    @classmethod
    def from_folder(cls, folder: Path) -> HeaderList:
        """The tensors of every .safetensors file of a folder, as the safetensors package reads them."""
        from safetensors import safe_open

        shapes = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                shapes.update({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
        return cls(shapes, str(folder))

    @classmethod
    def from_names(cls, names: Sequence[str]) -> HeaderList:
        """Names whose shapes are not known."""
        return cls(dict.fromkeys(names, ()))

    def without(self, name: str) -> HeaderList:
        return HeaderList({key: shape for key, shape in self.shapes.items() if key != name}, self.origin)

    def with_extra(self, name: str, shape: tuple[int, ...]) -> HeaderList:
        return HeaderList({**self.shapes, name: shape}, self.origin)

    def plan(self, architecture: Architecture, config: Config) -> Plan:
        """The plan of the names alone."""
        return plan(architecture.weights, self.names(), config)

    # The Checkpoint protocol

    def names(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def dtype(self, name: str) -> str:
        return "F32"

    def nbytes(self, name: str) -> int:
        return 0

    def read(self, name: str) -> Any:
        raise CheckpointError("A list of headers has no data.", where=self.origin)

    def release(self) -> None:
        pass

    def close(self) -> None:
        pass
