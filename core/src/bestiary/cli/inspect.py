"""`bestiary inspect`: what a model is and how its weights map, before anything large is fetched."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from bestiary.cli.options import CacheDir, Model, Offline, Plugin, Revision
from bestiary.cli.text import columns, quantity, size
from bestiary.loading import Identified, choose_loader, identify_model, weight_headers
from bestiary.records import SourceOptions
from bestiary.registry import default_registry
from bestiary.weights import Plan


def inspect(
    model: Model,
    revision: Revision = None,
    plugin: Plugin = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    everything: Annotated[bool, typer.Option("--all", help="One line for each parameter, layers not folded.")] = False,
) -> None:
    """Print a model's identity, its weight plan, its sizes, and what would be fetched."""
    from bestiary.building import build_empty, make_plan

    registry = default_registry()
    options = SourceOptions(revision=revision, cache_dir=cache_dir, offline=offline)
    identified = identify_model(model, options, registry, plugin)
    loader, names = choose_loader(identified.repository, registry)
    typer.echo(_identity(identified, loader.name))
    typer.echo(_files(identified, names))
    network = build_empty(identified.architecture, identified.config)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    with closing(weight_headers(identified, registry)) as checkpoint:
        plan = make_plan(identified.architecture, identified.config, network, checkpoint)
        stored = sum(checkpoint.nbytes(name) for name in checkpoint.names())
    count = sum(parameter.numel() for parameter in network.parameters())
    if plan.ties:
        count -= sum(parameter.numel() for name, parameter in network.named_parameters() if name in plan.ties)
    typer.echo(
        f"\nweights      {quantity(count)} parameters; {size(stored)} stored, {size(4 * count)} in float32, "
        f"{size(2 * count)} in bfloat16"
    )
    typer.echo(_plan(plan, shapes, everything))


def _identity(identified: Identified, loader: str) -> str:
    config = identified.config.text
    keys = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size")
    sizes = ", ".join(f"{key} {config[key]}" for key in (*keys, "max_position_embeddings") if key in config)
    plugin = identified.plugin
    rows = [
        ("model", identified.repository.origin),
        ("architecture", f"{identified.architecture.name}, task {identified.architecture.task}"),
        ("plugin", f"{plugin.name} ({plugin.distribution} {plugin.version})"),
        ("format", loader),
        ("config", sizes),
    ]
    return columns(rows, indent="")


def _files(identified: Identified, names: tuple[str, ...]) -> str:
    listing = identified.repository.files()
    missing = identified.repository.missing(names)
    rows = [(f"  {name}", size(listing[name]), "to fetch" if name in missing else "here") for name in names]
    total = f"to fetch     {size(sum(missing.values()))} in {len(missing)} files" if missing else "to fetch     nothing"
    return f"files\n{columns(rows, indent='')}\n{total}"


def _plan(plan: Plan, shapes: dict[str, tuple[int, ...]], everything: bool) -> str:
    from bestiary.building import fold

    groups = [(name, [name]) for name in plan.recipes] if everything else fold(plan.recipes)
    rows = []
    for title, members in groups:
        sources = plan.recipes[members[0]].sources()
        made_of = sources[0] if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1} more"
        shape = "x".join(str(length) for length in shapes[members[0]])
        rows.append((title, shape, "" if made_of == members[0] else f"<- {made_of}"))
    rows += [(name, "", f"shares the tensor of {source}") for name, source in plan.ties.items()]
    rows += [(name, "", "not used") for name, _ in fold(plan.dropped)]
    return "plan\n" + columns(rows)
