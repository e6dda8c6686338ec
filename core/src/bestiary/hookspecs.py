"""The whole contract between Bestiary and its plugins, API version 1.5.

A plugin is a distribution with an entry point in the group `bestiary` that names a module.  The module implements any
of these hooks with `@bestiary.hookimpl`.  Hooks are called once, at discovery, and must not import torch.
"""

from collections.abc import Sequence
from typing import Any

from pluggy import HookimplMarker, HookspecMarker

from bestiary.records import Architecture, KernelBackend, Loader, PipelineType, Quantizer, Source, ToolFormat

GROUP = "bestiary"
hookspec = HookspecMarker(GROUP)
hookimpl = HookimplMarker(GROUP)


@hookspec
def bestiary_architectures() -> Sequence[Architecture]:
    """Return the architectures that this plugin can build."""


@hookspec
def bestiary_loaders() -> Sequence[Loader]:
    """Return the weight-file formats that this plugin can open."""


@hookspec
def bestiary_quantizers() -> Sequence[Quantizer]:
    """Return the schemes by which this plugin holds weights in fewer bits."""


@hookspec
def bestiary_pipelines() -> Sequence[PipelineType]:
    """Return the pipeline objects that serve a task, such as "text"."""


@hookspec
def bestiary_kernels() -> Sequence[KernelBackend]:
    """Return fast implementations of operations, by type and device."""


@hookspec
def bestiary_sources() -> Sequence[Source]:
    """Return the places where a model id may resolve."""


@hookspec
def bestiary_tool_formats() -> Sequence[ToolFormat]:
    """Return the ways in which models write calls of tools."""


@hookspec
def bestiary_commands(cli: Any) -> None:
    """Add subcommands to `cli`, the typer application of the `bestiary` command."""
