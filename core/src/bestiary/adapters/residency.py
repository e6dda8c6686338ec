"""All adapters of a model: loaded, replaced and unloaded while requests run."""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from bestiary.adapters.laying import Base, lay
from bestiary.adapters.names import Names
from bestiary.adapters.peft import PeftAdapter
from bestiary.adapters.status import AdapterInfo, AdapterLimits, AdapterStatus, GenerationInfo
from bestiary.adapters.step import Current, ExpertsChange, Layers, LinearChange, select
from bestiary.errors import GenerationError, OptionError, RequestError, shown
from bestiary.nearest import did_you_mean
from bestiary.nn import Experts, Linear

log = logging.getLogger("bestiary.adapters")

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _refuse(id: str) -> PeftAdapter:
    raise OptionError(f"{shown(id)} cannot be opened here.", fix="give the adapter itself")


class Generation:
    """One adapter as it was loaded; it never changes, and a later one of the same alias is another."""

    def __init__(self, info: AdapterInfo, layers: Layers) -> None:
        self.info, self.layers = info, layers
        self.leases, self.retired = 0, False

    @property
    def exact(self) -> str:
        """A name that no other generation of this model has: what a key of a cache must hold."""
        return self.info.exact


class Lease:
    """The right of a request to its generation, which stays on the device until the last lease ends."""

    def __init__(self, adapters: Adapters, generation: Generation) -> None:
        self._adapters, self._over = adapters, False
        self.generation = generation

    def release(self) -> None:
        """End the lease; harmless when repeated."""
        self._adapters._release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Adapters:
    """The adapters of one model, by alias.  Safe to call from any thread.

    Layers that no adapter changes are left alone, and a model without adapters is as if this object did not exist.
    """

    def __init__(
        self,
        base: Base,
        limits: AdapterLimits | None = None,
        open: Callable[[str], PeftAdapter] = _refuse,
    ) -> None:
        """`open` reads the adapter of an id or a folder."""
        self.limits, self._open = limits or AdapterLimits(), open
        self._base, self._names = base, Names(base.plan, base.shapes)
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._live: dict[str, Generation] = {}
        self._resident: list[Generation] = []
        self._users: Counter[str] = Counter()
        self._last = 0
        self._current = Current()

    # Loading

    def load(self, alias: str, adapter: PeftAdapter | str, *, revision: str | None = None) -> AdapterInfo:
        """Lay an adapter, or that of an id or a folder, on the model under a new alias.

        Raises OptionError for an alias that is taken or a limit that is exceeded, WeightMismatch where it does not fit.
        """
        return self._load(alias, adapter, revision, replaced=None)

    def replace(
        self, alias: str, adapter: PeftAdapter | str, *, revision: str | None = None, expected: int | None = None
    ) -> AdapterInfo:
        """The same under an alias that exists.  Requests that run keep the generation that they began with.

        With `expected`, only if that is the alias's generation still.
        """
        return self._load(alias, adapter, revision, replaced=(expected,))

    def unload(self, alias: str, *, expected: int | None = None) -> None:
        """Take an alias away; its weights go with the last request that uses them."""
        with self._lock:
            self._check_expected(alias, expected)
            self._retire(self._live.pop(alias))

    def _load(
        self, alias: str, adapter: PeftAdapter | str, revision: str | None, replaced: tuple[int | None] | None
    ) -> AdapterInfo:
        if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
            raise OptionError(
                f"{shown(alias)} cannot be the alias of an adapter.",
                fix="use at most 64 letters, digits, dots, dashes and underscores",
            )
        if isinstance(adapter, str):
            adapter = self._open(adapter)
        if adapter.rank > self.limits.rank:
            raise OptionError(f"The adapter has rank {adapter.rank}; the limit is {self.limits.rank}.", where=alias)
        with self._loading:  # one at a time, so that together they stay within the limits
            return self._lay(alias, adapter, revision, replaced)

    def _lay(
        self, alias: str, adapter: PeftAdapter, revision: str | None, replaced: tuple[int | None] | None
    ) -> AdapterInfo:
        with self._lock:
            self._check_room(alias, replaced, adapter.numbers * self._base.dtype.itemsize)
        self._warn_of_base(adapter)
        layers = lay(adapter, self._base, self._names)
        with self._lock:
            self._check_room(alias, replaced, layers.nbytes)  # an alias may have been unloaded meanwhile
            self._install(layers)
            self._last += 1
            info = AdapterInfo(alias, adapter.id, revision, self._last, adapter.rank, layers.nbytes)
            generation = Generation(info, layers)
            self._resident.append(generation)
            old, self._live[alias] = self._live.get(alias), generation
            if old is not None:
                self._retire(old)
        return info

    def _check_room(self, alias: str, replaced: tuple[int | None] | None, nbytes: int) -> None:
        if replaced is None and alias in self._live:
            raise OptionError(f'There is an adapter "{alias}" already.', fix="replace it, or choose another alias")
        if replaced is not None:
            self._check_expected(alias, replaced[0])
        elif len(self._live) >= self.limits.count:
            raise OptionError(
                f"{len(self._live)} adapters are loaded, which is the limit.", fix="unload one that is not needed"
            )
        old = self._live.get(alias)
        freed = old.info.bytes if old is not None and not old.leases else 0
        held = sum(generation.info.bytes for generation in self._resident)
        if held - freed + nbytes > self.limits.bytes:
            raise OptionError(
                f"The adapters would take {held - freed + nbytes} bytes; the limit is {self.limits.bytes}.",
                fix="unload one that is not needed",
            )

    def _check_expected(self, alias: str, expected: int | None) -> None:
        generation = self._named(alias)
        if expected is not None and generation.info.generation != expected:
            raise OptionError(
                f'The adapter "{alias}" is generation {generation.info.generation}, not {expected}: it was replaced.'
            )

    def _warn_of_base(self, adapter: PeftAdapter) -> None:
        trained, here = adapter.config.base or "", self._base.id
        if trained and here and trained.rstrip("/").rpartition("/")[2] != here.rstrip("/").rpartition("/")[2]:
            log.warning("the adapter %s was trained on %s, and the model is %s", adapter.id, trained[:200], here)

    # Use

    def lease(self, name: str) -> Lease:
        """A lease of the generation that an alias means now, or of an exact one (`alias@3`) as long as it is current.

        Raises RequestError for a name that means nothing.
        """
        alias, at, number = name.partition("@")
        with self._lock:
            generation = self._live.get(alias)
            if generation is None or (at and number != str(generation.info.generation)):
                loaded = [live.exact if at else alias for alias, live in self._live.items()]
                near = did_you_mean(name, loaded) or f"loaded are: {', '.join(loaded) or 'none'}"
                raise RequestError(f"The model has no adapter {shown(name)}.", fix=near)
            generation.leases += 1
            return Lease(self, generation)

    @contextmanager
    def step(self, spans: Sequence[tuple[Generation | None, int]], outputs: Sequence[int] | None) -> Iterator[None]:
        """Around one forward pass in this thread: its rows use these generations; None is the model alone.

        `spans` are runs of rows in the order of the flat batch, `outputs` the rows whose states reach the head (None:
        all).  Each generation must be leased; raises GenerationError where one is gone.
        """
        with self._lock:
            gone = [each.exact for each, _ in spans if each is not None and each not in self._resident]
        if gone:
            raise GenerationError(f"The adapter {gone[0]} was unloaded while it was in use.")
        selection = select(
            [(None if each is None else each.layers, count) for each, count in spans], outputs, self._base.device
        )
        before, self._current.selection = self._current.selection, selection
        try:
            yield
        finally:
            self._current.selection = before

    def status(self) -> AdapterStatus:
        """What is loaded now."""
        with self._lock:
            return AdapterStatus(
                tuple(generation.info for generation in self._live.values()),
                tuple(
                    GenerationInfo(
                        each.info.generation,
                        each.info.alias,
                        each.info.rank,
                        each.info.bytes,
                        each.retired,
                        each.leases,
                    )
                    for each in self._resident
                ),
                self.limits,
            )

    # Under the lock

    def _named(self, alias: str) -> Generation:
        if alias not in self._live:
            near = did_you_mean(alias, self._live) or f"loaded are: {', '.join(self._live) or 'none'}"
            raise OptionError(f"There is no adapter {shown(alias)}.", fix=near)
        return self._live[alias]

    def _release(self, lease: Lease) -> None:
        with self._lock:
            if not lease._over:
                lease._over = True
                lease.generation.leases -= 1
                if lease.generation.retired:
                    self._retire(lease.generation)

    def _retire(self, generation: Generation) -> None:
        generation.retired = True
        if not generation.leases:
            self._resident.remove(generation)
            self._remove(generation.layers)

    def _install(self, layers: Layers) -> None:
        modules = {path: self._base.model.get_submodule(path) for path in layers.paths}
        for path, module in modules.items():
            if not self._users[path] and getattr(module, "adapter", None) is not None:
                raise OptionError(f"{path} of the model is adapted already, by something else than these adapters.")
        for path, module in modules.items():
            if isinstance(module, Linear):
                module.adapter = module.adapter or LinearChange(self._current, path, path in self._base.heads)
            elif isinstance(module, Experts):
                module.adapter = module.adapter or ExpertsChange(self._current, path)
            self._users[path] += 1

    def _remove(self, layers: Layers) -> None:
        for path in layers.paths:
            self._users[path] -= 1
            module = self._base.model.get_submodule(path)
            if not self._users[path] and isinstance(module, Linear | Experts):
                module.adapter = None
