"""`bestiary plugins`: what is installed, what each brings, and what is broken."""

import json
from collections import defaultdict
from dataclasses import asdict
from typing import Annotated, Any

import typer

from bestiary.cli.options import Json
from bestiary.records import Architecture, KernelBackend, Loader, PipelineType, Quantizer, Record, Source, ToolFormat
from bestiary.registry import Plugin, default_registry


def plugins(
    as_json: Json = False,
    reasons: Annotated[bool, typer.Option("--reasons", help="Show the whole error of broken plugins.")] = False,
) -> None:
    """List the installed plugins, their versions, what each provides, and the broken ones with their reason."""
    found = default_registry().plugins
    if as_json:
        typer.echo(json.dumps([_as_json(plugin) for plugin in found], indent=2))
        return
    for plugin in found:
        typer.echo(f"{plugin.name}  ({plugin.distribution} {plugin.version}, module {plugin.module})")
        if plugin.error:
            typer.echo(f"  BROKEN: {plugin.error}")
            typer.echo(f"  fix:    pip install --force-reinstall {plugin.distribution}")
            if reasons:
                typer.echo(plugin.traceback)
        for kind, names in provided(plugin).items():
            typer.echo(f"  {kind}: {', '.join(names)}")


def provided(plugin: Plugin) -> dict[str, list[str]]:
    """What a plugin registers, by kind."""
    kinds = defaultdict(list)
    for record in plugin.records:
        kinds[_KINDS[type(record)]].append(_name(record))
    return dict(kinds)


_KINDS: dict[type[Record], str] = {
    Architecture: "architectures",
    Loader: "loaders",
    Quantizer: "quantizers",
    PipelineType: "pipelines",
    KernelBackend: "kernels",
    Source: "sources",
    ToolFormat: "tool formats",
}


def _name(record: Record) -> str:
    if isinstance(record, PipelineType):
        return record.task
    if isinstance(record, KernelBackend):
        return f"{record.operation} ({', '.join(record.types)} on {', '.join(record.devices)})"
    return record.name


def _as_json(plugin: Plugin) -> dict[str, Any]:
    facts = {name: value for name, value in asdict(plugin).items() if name not in ("records", "traceback")}
    return {**facts, "provides": provided(plugin)}
