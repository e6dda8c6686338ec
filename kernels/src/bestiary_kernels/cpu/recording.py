"""A step that was computed once, computed again without Python between its operations.

While a step runs, every native call is written down, with the tensors that it works on kept where they are.  What
torch computes between them is written down too, and done again by torch at its place.  A step that looks at numbers in
Python, and so may take another way the next time, cannot be recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from bestiary_kernels.cpu.library import addresses, library, recorded
from bestiary_kernels.cpu.quiet import quiet

_LOOKS = frozenset(
    getattr(torch.Tensor, name)
    for name in (
        "item",
        "tolist",
        "numpy",
        "__bool__",
        "__int__",
        "__float__",
        "__index__",
        "__array__",
        "__contains__",
    )
)
"""Functions through which numbers reach Python."""

_OF_DATA = frozenset({"nonzero", "unique", "bincount", "masked_select", "_local_scalar_dense", "equal", "is_nonzero"})
"""Operations whose result, or the shape of it, depends on numbers."""

_MEMORY = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})
"""Operations that give memory and no numbers."""

_PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "linear", "_scaled_dot_product_flash_attention_for_cpu"})
"""Operations that gain from several threads; all others of a step are so small that these would stand in the way."""


@dataclass(frozen=True)
class _Product:
    """Of a step, what torch computes with all its threads."""

    work: Callable[[], None]


class NotRecordable(RuntimeError):
    """The step looks at numbers."""


class _Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no type for it
    """What a step does, in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.items: list[tuple[int, bytes] | _Product | Callable[[], None]] = []
        self.kept: list[torch.Tensor] = []

    def called(self, operation: int, arguments: bytes) -> None:
        self.items.append((operation, arguments))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name.removeprefix("aten::"), kwargs or {}
        if name in _OF_DATA:
            raise NotRecordable(f"it calls {name}, whose result depends on numbers")
        made = func(*args, **kwargs)
        results = list(_tensors(made))
        self.kept += results
        if func._schema.is_mutable:
            self.kept += _tensors((args, kwargs))
            self.items.append(lambda: func(*args, **kwargs))
        elif name not in _MEMORY and not _views(results, list(_tensors((args, kwargs)))):
            self.kept += _tensors((args, kwargs))
            again = _again(func, args, kwargs, results)
            self.items.append(_Product(again) if name in _PRODUCTS else again)
        return made


class _Watch(TorchFunctionMode):
    """Refuses what shows numbers to Python."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _LOOKS:
            raise NotRecordable(f"it calls {func.__name__}, which shows numbers to Python")
        return func(*args, **(kwargs or {}))


def record(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Run a step, and return what does it again: with the numbers that are then in the tensors it reads.

    Raises NotRecordable, a RuntimeError, where it does what cannot be done again so.
    """
    recording = _Recording()
    with torch.inference_mode(), _Watch(), recording, recorded(recording):
        made = step()
    steps = list(_joined(recording.items))
    run, threads = library().run, torch.get_num_threads

    def replay() -> torch.Tensor:
        count = threads()
        with quiet():
            for item in steps:
                if isinstance(item, tuple):
                    run(item[0], item[1], count)
                elif isinstance(item, _Product):
                    torch.set_num_threads(count)
                    item.work()
                    torch.set_num_threads(1)
                else:
                    item()
        return made

    replay.kept = recording.kept  # type: ignore[attr-defined]
    return replay


def _joined(items: list[tuple[int, bytes] | _Product | Callable[[], None]]) -> Iterator[Any]:
    """Native calls in a row as one list each."""
    calls: list[tuple[int, bytes]] = []
    for item in items:
        if isinstance(item, tuple):
            calls.append(item)
            continue
        if calls:
            yield _list(calls)
            calls = []
        yield item
    if calls:
        yield _list(calls)


def _list(calls: list[tuple[int, bytes]]) -> tuple[Any, int, list[object]]:
    flat, kept = addresses(calls)
    return flat, len(calls), kept


def _again(func: Any, args: Any, kwargs: Any, results: list[torch.Tensor]) -> Callable[[], None]:
    """What computes the same into the memory of the results; by the operation's own form for that, where it has one."""
    packet = func.overloadpacket
    if "out" in packet.overloads():
        schema = packet.out._schema.arguments
        places = [argument.name for argument in schema if argument.is_out]
        others = [argument.name for argument in schema if not argument.is_out]
        if len(places) == len(results) and others == [argument.name for argument in func._schema.arguments]:
            told = {**kwargs, **dict(zip(places, results, strict=True))}
            into = packet.out
            return lambda: into(*args, **told)

    def again() -> None:
        for target, value in zip(results, _tensors(func(*args, **kwargs)), strict=True):
            target.copy_(value)

    return again


def _views(results: list[torch.Tensor], inputs: list[torch.Tensor]) -> bool:
    """Whether the results are other looks at the memory of the inputs."""
    memory = {tensor.untyped_storage().data_ptr() for tensor in inputs if tensor.numel()}
    return bool(results) and all(result.untyped_storage().data_ptr() in memory for result in results)


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, torch.Tensor))
