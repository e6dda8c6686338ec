"""`bestiary.Zoo`: several pipelines behind one object, within a budget of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bestiary import loading
from bestiary.amount import check_memory
from bestiary.closing import Closing
from bestiary.errors import OptionError, RequestError, shown
from bestiary.nearest import did_you_mean
from bestiary.records import PipelineType
from bestiary.registry import default_registry
from bestiary.zoo.calls import Calls
from bestiary.zoo.entry import Entry, check_name
from bestiary.zoo.estimate import estimate
from bestiary.zoo.holdings import Holdings
from bestiary.zoo.keeper import Keeper
from bestiary.zoo.lease import Lease
from bestiary.zoo.maker import Estimator, Maker
from bestiary.zoo.slot import Slot
from bestiary.zoo.status import ModelStatus


class Zoo(Calls, Closing):
    """Models by name: each is loaded when it is first asked for, and closed when another one needs its room.

    Safe to call from several threads and tasks; a context manager that closes everything.

    A call holds a lease on its model, and a model with leases or running requests is never closed for another one.
    Who needs room waits for it, and who comes later for the models that must go waits behind.  RequestError and
    OutOfMemory say why a call could not be served.
    """

    def __init__(
        self,
        models: Mapping[str, str | Entry] | None = None,
        *,
        memory: int | float | str | None = None,
        default: str | None = None,
        wait: float = 60.0,
        load: Callable[..., Any] = loading.load,
        estimate: Estimator = estimate,
    ) -> None:
        """`models` maps names to model ids, or to `Entry` for options.

        `memory` is the budget for weights and caches on each device that the models use: bytes, a text such as
        "24 GiB", a share (0.8) of what is free when the first model is loaded there, or None, all of that.  `default`
        is the model of calls that name none; None: the first.  `wait` is how many seconds a call waits, unless it says
        otherwise, for models in use to make room.  `load` (id, **options) makes a pipeline and `estimate` (id, options,
        budget of a device) foretells what it takes, where models are not those of `bestiary.load`.
        """
        self._wait = _checked(wait)
        self._load = load
        self._keeper = Keeper(Holdings(Maker(load, estimate, check_memory(memory))))
        self._names: dict[str, Slot] = {}
        self._default: str | None = None
        for name, entry in (models or {}).items():
            self.add(name, entry)
        if default is not None:
            self.default = default

    # Models

    @property
    def names(self) -> tuple[str, ...]:
        """The models, in the order in which they were added."""
        return tuple(slot.name for slot in dict.fromkeys(self._names.values()))

    @property
    def default(self) -> str | None:
        """The model of calls that name none."""
        return self._default

    @default.setter
    def default(self, name: str) -> None:
        self._default = self._slot(name).name

    def add(self, name: str, model: str | Entry, **options: Any) -> None:
        """Add a model; nothing is loaded.  The options are those of `Entry`, and through it those of the loader."""
        if isinstance(model, Entry) and options:
            raise OptionError(f'"{name}" is given as an Entry, which has its options already.')
        entry = model if isinstance(model, Entry) else Entry(model, **options)
        self._check_options(name, entry)
        slot = Slot(check_name(name), entry)
        with self._keeper.holdings.locked():
            for own in (name, *entry.aliases):
                if own in self._names or (name, *entry.aliases).count(own) > 1:
                    raise OptionError(f'The name "{own}" is taken.', fix="choose another one, or remove the model")
            self._keeper.add(slot)
            self._names = {**self._names, **dict.fromkeys((name, *entry.aliases), slot)}
            self._default = self._default or name

    def remove(self, name: str, *, now: bool = False, wait: float | None = None) -> None:
        """Close a model when its leases have ended, and forget it; `now` ends what runs.

        RequestError after `wait` seconds, and then the model stays.
        """
        slot = self._slot(name)
        self._keeper.unload(slot, self._patience(wait), now=now, remove=True)
        with self._keeper.holdings.locked():
            self._names = {own: other for own, other in self._names.items() if other is not slot}
            self._default = None if self._default == slot.name else self._default

    def load(self, name: str | None = None, *, wait: float | None = None) -> None:
        """Have a model ready ahead of its first call."""
        self.lease(name, wait=wait).take().release()

    def unload(self, name: str, *, now: bool = False, wait: float | None = None) -> None:
        """Close a model when its leases have ended, pinned or not; the next call loads it again."""
        self._keeper.unload(self._slot(name), self._patience(wait), now=now)

    def reload(self, name: str, *, now: bool = False, wait: float | None = None) -> None:
        """Close a model as `unload` does, forget what was learned of its files, and load it."""
        self._keeper.unload(self._slot(name), self._patience(wait), now=now, forget=True)
        self.load(name, wait=wait)

    def status(self) -> tuple[ModelStatus, ...]:
        """What every model is doing, in the order in which they were added."""
        return self._keeper.holdings.status()

    # Use

    def lease(self, model: str | None = None, *, wait: float | None = None) -> Lease:
        """A context manager, plain or async, that gives the pipeline of a model and keeps it there meanwhile.

        What is begun inside should end inside; a request that goes on afterwards still keeps the model.
        """
        name = self._default if model is None else model
        if name is None:
            raise RequestError("No model is named, and there is no default.", fix="model=..., or set zoo.default")
        return Lease(self._keeper, self._slot(name), self._patience(wait))

    # Life

    def close(self) -> None:
        """Close every model with what it runs, after the loads that are under way; later calls raise RequestError."""
        self._keeper.close()

    def __repr__(self) -> str:
        return f"<Zoo of {', '.join(f'{model.name} ({model.state})' for model in self.status())}>"

    def _slot(self, name: object) -> Slot:
        found = self._names.get(name) if isinstance(name, str) else None
        if found is None:
            near = did_you_mean(name, self._names) if isinstance(name, str) and len(name) <= 300 else ""
            raise RequestError(
                f"The zoo has no model {shown(name)}.",
                fix=near or f"its models are {', '.join(self.names) or 'none'}",
            )
        return found

    def _patience(self, wait: float | None) -> float:
        return self._wait if wait is None else _checked(wait)

    def _check_options(self, name: str, entry: Entry) -> None:
        """What `bestiary.load` would refuse is refused now; what another loader takes is not known here."""
        known = loading.load.__kwdefaults__ or {}
        if self._load is not loading.load or entry.options.keys() <= known.keys():
            return
        registry = entry.options.get("registry") or default_registry()
        pipelines = [option for record, _ in registry.records(PipelineType) for option in record.options]
        own = [*known, *pipelines, "pinned", "idle", "memory", "aliases"]
        for option in entry.options:
            if option not in own:
                raise OptionError(
                    f'The model "{name}" has an option "{option}", which neither `load` nor a zoo knows.',
                    fix=did_you_mean(option, own) or f"the options are {', '.join(own)}",
                )


def _checked(wait: float) -> float:
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < 1e9:
        raise OptionError(f"wait is {shown(wait)}; seconds from 0 on are due.")
    return wait
