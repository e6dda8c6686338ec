"""Which back end computes each operation of a model: chosen once, when the model is loaded.

`BESTIARY_KERNELS`, or the option `kernels` of `bestiary.load`, changes the choice by words with commas between them:

    off        plain torch computes everything
    check      each operation is compared with plain torch when it is first used
    NAME       only back ends of this name, besides plain torch
    -NAME      all but those
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from bestiary.errors import KernelError, OptionError
from bestiary.nearest import did_you_mean
from bestiary.records import KernelBackend, resolve
from bestiary.registry import Registry

if TYPE_CHECKING:
    import torch

    from bestiary.nn.operations import Operations

log = logging.getLogger("bestiary.kernels")

VARIABLE = "BESTIARY_KERNELS"


@dataclass(frozen=True)
class Wish:
    """What a user wants of the choice."""

    check: bool = False
    only: frozenset[str] | None = None
    """Names of back ends; None: any."""
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Choice:
    """Who computes an operation, and why not another."""

    operation: str
    backend: KernelBackend | None
    """None: plain torch."""
    why: str


def wish(text: str | None, registry: Registry) -> Wish:
    """What a text asks for; of None what the environment does.  Raises OptionError for a word that means nothing."""
    words = [word.strip() for word in (os.environ.get(VARIABLE, "") if text is None else text).split(",")]
    known = {record.name for record, _ in registry.records(KernelBackend)}
    check, only, without = False, set[str](), set[str]()
    for word in filter(None, words):
        if word == "check":
            check = True
        elif word == "off":
            without |= known
        elif word.removeprefix("-") in known:
            (without if word.startswith("-") else only).add(word.removeprefix("-"))
        else:
            names = ["off", "check", *sorted(known)]
            fix = did_you_mean(word, names) or f"known are {', '.join(names)}"
            raise OptionError(f'There are no kernels "{word}".', where=VARIABLE if text is None else None, fix=fix)
    return Wish(check, frozenset(only) or None, frozenset(without))


def choices(registry: Registry, dtype: str, device: str, wished: Wish) -> tuple[Choice, ...]:
    """Who computes each operation on numbers of a type ("bfloat16"), on a kind of device ("cpu")."""
    from bestiary.nn.operations import Operations

    return tuple(choose_one(registry, field.name, dtype, device, wished) for field in fields(Operations))


def choose(registry: Registry, dtype: torch.dtype, device: torch.device, wished: Wish) -> Operations:
    """The operations for a model of a type on a device."""
    from bestiary.nn.operations import Operations, plain

    found: dict[str, Any] = {}
    for choice in choices(registry, str(dtype).removeprefix("torch."), device.type, wished):
        if choice.backend is None:
            continue
        function = resolve(choice.backend.function)
        reference = plain(choice.operation)
        if wished.check and reference is not None:
            function = _Checked(choice.backend, function, reference)
        found[choice.operation] = function
    return replace(Operations(), **found)


def choose_one(registry: Registry, operation: str, dtype: str, device: str, wished: Wish) -> Choice:
    """Who computes one operation; it need not be one of models, as "resize" of `bestiary.media.images` is not."""
    reasons: list[str] = []
    candidates = [record for record, _ in registry.records(KernelBackend) if record.operation == operation]
    for record in sorted(candidates, key=lambda record: -record.priority):
        reason = _against(record, dtype, device, wished)
        if reason is None:
            return Choice(operation, record, "; ".join([*reasons, "the fastest that runs here"]))
        reasons.append(f"{record.name or record.function} {reason}")
    return Choice(operation, None, "; ".join(reasons) or "no installed plugin has another")


def _against(record: KernelBackend, dtype: str, device: str, wished: Wish) -> str | None:
    """Why a back end does not serve, or None."""
    if record.name in wished.without or (wished.only is not None and record.name not in wished.only):
        return "is switched off"
    if device not in record.devices:
        return f"is for {', '.join(record.devices)}"
    if dtype not in record.types:
        return f"does not compute in {dtype}"
    if record.unavailable is None:
        return None
    reason: str | None = resolve(record.unavailable)()
    return None if reason is None else f"cannot run: {reason}"


class _Checked:
    """A fast function that is compared with the reference the first time that each kind of arguments comes."""

    def __init__(self, backend: KernelBackend, fast: Callable[..., Any], reference: Callable[..., Any]) -> None:
        self.backend, self.fast, self.reference = backend, fast, reference
        self.seen: set[object] = set()

    def __call__(self, *arguments: Any) -> Any:
        kind = _kind(arguments)
        if kind in self.seen:
            return self.fast(*arguments)
        expected, made = self.reference(*arguments), self.fast(*arguments)
        if made is not None:
            self._compare(made, expected, kind)
            self.seen.add(kind)
        return made

    def _compare(self, made: Any, expected: Any, kind: object) -> None:
        import torch

        pairs = [(made, expected)] if isinstance(made, torch.Tensor) else zip(made, expected, strict=True)
        for one, other in pairs:
            difference = float((one.double() - other.double()).norm() / other.double().norm().clamp(min=1e-12))
            if not difference <= self.backend.tolerance:
                raise KernelError(
                    f"{self.backend.name} computes {self.backend.operation} otherwise than plain torch: "
                    f"the difference is {difference:.2g} of the result, and {self.backend.tolerance:.2g} is allowed.",
                    where=str(kind),
                    fix=f"{VARIABLE}=-{self.backend.name} leaves it aside; please report it",
                )
            log.info("%s %s: difference %.2g", self.backend.name, self.backend.operation, difference)


def _kind(arguments: Any) -> object:
    """What arguments have in common with others that are computed alike."""
    import torch

    if isinstance(arguments, torch.Tensor):
        return str(arguments.dtype), arguments.ndim
    if isinstance(arguments, tuple | list):
        return tuple(_kind(one) for one in arguments)
    if isinstance(arguments, str | float | bool | Mapping):
        return str(arguments)
    return type(arguments).__name__, str(getattr(arguments, "type", ""))
