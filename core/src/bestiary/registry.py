"""Finding plugins, and finding in them the record that serves.

A `Registry` is an object; `default_registry()` makes the one that `bestiary.load` uses, once and when first needed.
One broken plugin never takes the host down: it is kept with its traceback and named when it would have served.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import pluggy

from bestiary import hookspecs
from bestiary.errors import InvalidPlugin, MissingPlugin
from bestiary.records import (
    API,
    Architecture,
    KernelBackend,
    Loader,
    PipelineType,
    Quantizer,
    Record,
    Source,
    ToolFormat,
)

log = logging.getLogger("bestiary.plugins")
R = TypeVar("R", bound=Record)

_KINDS: dict[str, type[Record]] = {
    "bestiary_architectures": Architecture,
    "bestiary_loaders": Loader,
    "bestiary_quantizers": Quantizer,
    "bestiary_pipelines": PipelineType,
    "bestiary_kernels": KernelBackend,
    "bestiary_sources": Source,
    "bestiary_tool_formats": ToolFormat,
}


@dataclass(frozen=True)
class Plugin:
    """One entry point, loaded or broken."""

    name: str
    distribution: str
    version: str
    module: str
    records: tuple[Record, ...] = ()
    error: str | None = None
    """One line: why it does not serve."""
    traceback: str = ""


@dataclass(frozen=True)
class Registry:
    """The plugins of one process, in order of discovery, and the plugin manager that holds their hooks."""

    plugins: tuple[Plugin, ...]
    manager: pluggy.PluginManager
    only: tuple[str, ...] | None = None
    """The names to which discovery was limited; None: every installed plugin."""

    @property
    def broken(self) -> tuple[Plugin, ...]:
        return tuple(plugin for plugin in self.plugins if plugin.error)

    def records(self, kind: type[R]) -> tuple[tuple[R, Plugin], ...]:
        """Every record of a kind with the plugin that brought it."""
        return tuple(
            (record, plugin) for plugin in self.plugins for record in plugin.records if isinstance(record, kind)
        )

    def add_commands(self, cli: Any) -> None:
        """Let every plugin add its subcommands to a typer application; one that fails is logged and left out."""
        names = [name for name, _ in self.manager.list_name_plugin()]
        for name in names:
            others = [plugin for other, plugin in self.manager.list_name_plugin() if other != name]
            try:
                self.manager.subset_hook_caller("bestiary_commands", others)(cli=cli)
            except Exception:
                log.warning("the commands of plugin %s are left out, for they failed to load", name, exc_info=True)

    def kernel(self, operation: str, type: str, device: str) -> KernelBackend | None:
        """The fastest implementation of an operation for a type and a device, or None: then plain torch serves."""
        found = [
            record
            for record, _ in self.records(KernelBackend)
            if record.operation == operation and type in record.types and device in record.devices
        ]
        return max(found, key=lambda record: record.priority, default=None)

    def pipeline(self, task: str) -> PipelineType:
        """The pipeline of a task.  Raises MissingPlugin."""
        found = [record for record, _ in self.records(PipelineType) if record.task == task]
        if not found:
            known = ", ".join(sorted({record.task for record, _ in self.records(PipelineType)}))
            raise MissingPlugin(
                f'No installed plugin runs models for the task "{task}".',
                where=f"installed tasks: {known or 'none'}",
                fix="`bestiary plugins` lists what is installed.",
            )
        return found[-1]


def discover(
    only: Iterable[str] | None = None, trace: bool = False, points: Iterable[EntryPoint] | None = None
) -> Registry:
    """Import entry points (`points`; by default every installed one of the group `bestiary`) and collect their records.

    `only` limits discovery to these plugin or distribution names; `core` is always among them.  `trace` logs every hook
    call at level DEBUG.  Misspelt hooks, records of a wrong type, an API newer than the core's and a name taken twice
    make that one plugin broken.
    """
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    if trace:
        manager.trace.root.setwriter(lambda line: log.debug(line.rstrip()))
        manager.enable_tracing()
    only = None if only is None else tuple(only)
    wanted = None if only is None else {*only, "core", "bestiary-core"}
    found = entry_points(group=hookspecs.GROUP) if points is None else points
    ordered = sorted(found, key=lambda point: (point.name != "core", point.name))
    plugins: list[Plugin] = []
    for point in ordered:
        distribution = point.dist.name if point.dist else "unknown"
        if wanted is None or point.name in wanted or distribution in wanted:
            plugins.append(_load(point, distribution, manager, plugins))
    return Registry(tuple(plugins), manager, only)


@cache
def default_registry() -> Registry:
    """The registry of this process: all plugins, or those that BESTIARY_PLUGINS names (comma-separated)."""
    limit = os.environ.get("BESTIARY_PLUGINS")
    only = None if limit is None else [name.strip() for name in limit.split(",") if name.strip()]
    return discover(only, trace=os.environ.get("BESTIARY_TRACE", "") not in ("", "0"))


def _load(point: EntryPoint, distribution: str, manager: pluggy.PluginManager, earlier: list[Plugin]) -> Plugin:
    facts: dict[str, Any] = {
        "name": point.name,
        "distribution": distribution,
        "version": point.dist.version if point.dist else "unknown",
        "module": point.value,
    }
    try:
        twin = next((plugin for plugin in earlier if plugin.name == point.name), None)
        if twin:
            raise InvalidPlugin(
                f'Two distributions register a plugin named "{point.name}": {twin.distribution} and {distribution}.',
                fix=f"pip uninstall {distribution}",
            )
        manager.register(point.load(), name=point.name)
        return Plugin(**facts, records=_collect(point.name, manager))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may fail in any way, Rust panics and sys.exit included; the others serve
        if manager.has_plugin(point.name) and point.name not in {plugin.name for plugin in earlier}:
            manager.unregister(name=point.name)
        log.debug("plugin %s is broken", point.name, exc_info=True)
        line = " ".join(f"{type(error).__name__}: {error}".split())
        return Plugin(**facts, error=line, traceback=traceback.format_exc())


def _collect(name: str, manager: pluggy.PluginManager) -> tuple[Record, ...]:
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise InvalidPlugin(
            f"The plugin implements a hook that does not exist: {error}", fix="docs/hooks.md lists the hooks."
        ) from error
    others = [plugin for plugin_name, plugin in manager.list_name_plugin() if plugin_name != name]
    records: list[Record] = []
    for hook, kind in _KINDS.items():
        for answer in manager.subset_hook_caller(hook, others)():
            for record in answer:
                records.append(_checked(record, kind, hook))
    return tuple(records)


def _checked(record: Any, kind: type[Record], hook: str) -> Record:
    if not isinstance(record, kind):
        raise InvalidPlugin(f"{hook} returned a {type(record).__name__}, and {kind.__name__} records are due.")
    if record.api[0] != API[0] or record.api > API:
        theirs, ours = (".".join(str(part) for part in version) for version in (record.api, API))
        raise InvalidPlugin(
            f"The plugin was written for hook API {theirs}; this core has {ours}.",
            fix="pip install -U bestiary-core" if record.api > API else "ask the plugin's author for a newer release",
        )
    return record
