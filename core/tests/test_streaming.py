"""Networks whose layers come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bestiary.errors import InvalidPlugin
from bestiary.nn import Embedding, Linear
from bestiary.pulling import Puller
from bestiary.streaming import StreamedModel
from bestiary.weights import plan


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner, self.scale = nn.ModuleList([Linear(dim, dim, True)]), Table(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner[0](x) * self.scale()


class Table(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim))

    def forward(self) -> torch.Tensor:
        return self.weight


class Net(nn.Module):
    def __init__(self, dim: int = 4) -> None:
        super().__init__()
        self.first = Linear(dim, dim)
        self.trunk = nn.ModuleDict({"blocks": nn.ModuleList(Block(dim) for _ in range(3))})
        self.words = Embedding(5, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.trunk["blocks"]:
            x = block(x)
        return x


class Stored:
    """A checkpoint in memory that notes what is asked of it."""

    origin, config = "the test", {}

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors
        self.read_names: list[str] = []
        self.foreseen: list[list[str]] = []

    def names(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def dtype(self, name: str) -> str:
        return "F32"

    def nbytes(self, name: str) -> int:
        return self.tensors[name].nbytes

    def read(self, name: str) -> torch.Tensor:
        self.read_names.append(name)
        return self.tensors[name]

    def prefetch(self, names: list[str]) -> None:
        self.foreseen.append(list(names))

    def release(self) -> None: ...
    def close(self) -> None: ...


@pytest.fixture
def stored() -> Stored:
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = {name: each.shape for name, each in Net().named_parameters()}
    return Stored({name: torch.randn(shape) for name, shape in shapes.items()})


@contextmanager
def stream(stored: Stored) -> Iterator[Any]:
    with torch.device("meta"):
        empty = Net()
    rules = plan((), stored.names())
    yield SimpleNamespace(puller=Puller(empty, rules, stored, device=torch.device("cpu"), dtype=torch.float32))


def whole(stored: Stored) -> Net:
    made = Net()
    made.load_state_dict(stored.tensors)
    return made


@torch.no_grad()
def test_it_computes_what_the_whole_network_does(stored: Stored) -> None:
    streamed, x = StreamedModel(stream(stored)), torch.randn(2, 4)
    for _ in range(2):
        assert torch.equal(streamed.model(x), whole(stored)(x))
    streamed.close()


@torch.no_grad()
def test_a_layer_has_weights_only_while_it_runs(stored: Stored) -> None:
    streamed = StreamedModel(stream(stored))
    here: list[list[bool]] = []
    blocks = streamed.model.trunk["blocks"]

    def look(*_: Any) -> None:
        here.append([not block.scale.weight.is_meta for block in blocks])

    for block in blocks:
        block.register_forward_pre_hook(look)
    streamed.model(torch.randn(2, 4))
    assert here == [[True, False, False], [False, True, False], [False, False, True]]
    look()
    assert here[-1] == [False, False, False]
    assert not streamed.model.first.weight.is_meta and not streamed.model.words.weight.is_meta


@torch.no_grad()
def test_the_next_layer_is_foreseen(stored: Stored) -> None:
    streamed = StreamedModel(stream(stored))
    streamed.model(torch.randn(2, 4))
    assert [{name.split(".")[2] for name in names} for names in stored.foreseen] == [{"1"}, {"2"}, {"0"}]


@torch.no_grad()
def test_a_failure_takes_the_weights_out(stored: Stored) -> None:
    streamed = StreamedModel(stream(stored))
    with pytest.raises(RuntimeError):
        streamed.model.trunk["blocks"][0](torch.randn(2, 9))
    assert streamed.model.trunk["blocks"][0].scale.weight.is_meta


@torch.no_grad()
def test_a_module_that_is_used_outside_its_layer_is_an_error(stored: Stored) -> None:
    streamed = StreamedModel(stream(stored))
    with pytest.raises(InvalidPlugin, match="scale of a layer was called while the layer was not running"):
        streamed.model.trunk["blocks"][1].scale()
