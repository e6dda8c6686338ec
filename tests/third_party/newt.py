"""A plugin that implements every hook, as a third party would: with nothing but the documented contract."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bestiary


@bestiary.hookimpl
def bestiary_architectures() -> Sequence[bestiary.Architecture]:
    return [bestiary.Architecture("NewtModel", "newt", "newt:build")]


@bestiary.hookimpl
def bestiary_loaders() -> Sequence[bestiary.Loader]:
    return [
        bestiary.Loader(
            "newt",
            (".newt",),
            lambda name, head: head.startswith(b"{"),
            "newt:files",
            "newt:NewtCheckpoint",
            priority=5,
        )
    ]


@bestiary.hookimpl
def bestiary_quantizers() -> Sequence[bestiary.Quantizer]:
    return [bestiary.Quantizer("rows", ("rows8",), pack="newt:pack", methods=("stored_rows8",), load="newt:Unpacked")]


@bestiary.hookimpl
def bestiary_pipelines() -> Sequence[bestiary.PipelineType]:
    return [bestiary.PipelineType("newt", "newt:NewtPipeline")]


@bestiary.hookimpl
def bestiary_kernels() -> Sequence[bestiary.KernelBackend]:
    return [
        bestiary.KernelBackend("double", ("F32",), ("cpu",), "newt:slow_double"),
        bestiary.KernelBackend("double", ("F32",), ("cpu", "cuda"), "newt:double", priority=1),
    ]


@bestiary.hookimpl
def bestiary_sources() -> Sequence[bestiary.Source]:
    return [bestiary.Source("pond", lambda model: model.startswith("pond:"), "newt:open_pond", priority=40)]


@bestiary.hookimpl
def bestiary_tool_formats() -> Sequence[bestiary.ToolFormat]:
    return [bestiary.ToolFormat("newt", "newt:croaks", present=("croak(",), form="newt:CROAKS")]


@bestiary.hookimpl
def bestiary_commands(cli: Any) -> None:
    @cli.command()
    def croak(times: int = 1) -> None:
        """Say it."""
        print("croak " * times)


# What the records name; imported only when it is used.


def build(config: Any) -> Any:
    from torch import nn

    from bestiary.nn import Linear

    class Newt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = Linear(config.width, config.width)

        def forward(self, x: Any) -> Any:
            return self.proj(x)

    return Newt()


class NewtPipeline:
    def __init__(self, identified: Any, pull: Any) -> None:
        self.identified, self.loaded = identified, pull()

    def __call__(self, x: Any) -> Any:
        return self.loaded.model(x)


def files(repository: Any) -> Sequence[str]:
    return [name for name in repository.files() if name.endswith(".newt")]


class NewtCheckpoint:
    """Tensors as JSON: {"name": rows}."""

    config: Mapping[str, Any] = {}

    def __init__(self, repository: Any, names: Sequence[str]) -> None:
        self.origin = repository.origin
        self.values = json.loads(repository.path(names[0]).read_text())

    def names(self) -> tuple[str, ...]:
        return tuple(self.values)

    def shape(self, name: str) -> tuple[int, ...]:
        return (len(self.values[name]), len(self.values[name][0]))

    def dtype(self, name: str) -> str:
        return "F32"

    def nbytes(self, name: str) -> int:
        rows, columns = self.shape(name)
        return 4 * rows * columns

    def read(self, name: str) -> Any:
        import torch

        return torch.tensor(self.values[name])

    def release(self) -> None: ...

    def close(self) -> None: ...


class Unpacked:
    """A checkpoint whose weights are stored as whole numbers with one scale for all."""

    def __init__(self, inner: Any, settings: Mapping[str, Any], asked: str | None) -> None:
        self.inner, self.scale = inner, settings["scale"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def read(self, name: str) -> Any:
        return self.inner.read(name) * self.scale


class Rows8:
    """A packed weight: int8 with a scale for each row."""

    def __init__(self, weight: Any) -> None:
        self.scales = weight.abs().amax(1, keepdim=True) / 127
        self.numbers = (weight / self.scales).round().char()
        self.shape = tuple(weight.shape)
        self.nbytes = self.numbers.numel() + 4 * len(self.scales)

    def dequantize(self, dtype: Any = None) -> Any:
        plain = self.numbers.float() * self.scales
        return plain if dtype is None else plain.to(dtype)

    def multiply(self, x: Any) -> Any:
        return x @ self.dequantize(x.dtype).T

    def rows(self, index: Any) -> "Rows8":
        return Rows8(self.dequantize()[index])

    def to(self, device: Any) -> "Rows8":
        self.numbers, self.scales = self.numbers.to(device), self.scales.to(device)
        return self


def pack(tensor: Any, scheme: str) -> Rows8:
    assert scheme == "rows8"
    return Rows8(tensor.float())


def croaks(offered: Any) -> Any:
    """croak(NAME, {...})"""
    import re

    from bestiary.generation.tools.json_calls import arguments_object
    from bestiary.generation.tools.parser import GrammarParser
    from bestiary.generation.tools.reader import Markers

    class Croaks(GrammarParser):
        markers = Markers("croak(")

        def call(self, marker: str) -> Any:
            self.start((yield from self.reader.word(re.compile("[a-z_]+"), 64)))
            yield from self.reader.expect(", ")
            yield from arguments_object(self.reader, self.arguments)
            yield from self.reader.expect(")")

    return Croaks(offered)


def __getattr__(name: str) -> Any:
    if name != "CROAKS":
        raise AttributeError(name)
    from bestiary.generation.constraints.tools import ToolForm

    return ToolForm("croak(", ", ", ")", marker="croak(")


def double(x: Any) -> Any:
    return x + x


def slow_double(x: Any) -> Any:
    return x * 2


def open_pond(model: str, options: bestiary.SourceOptions) -> Any:
    from bestiary.sources.folder import Folder

    return Folder(Path(model.removeprefix("pond:")), model)
