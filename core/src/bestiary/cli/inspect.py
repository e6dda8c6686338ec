"""`bestiary inspect`: what a model is and how its weights map, before anything large is fetched."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from bestiary.cli.options import (
    CacheDir,
    CalibrationFile,
    Device,
    Imatrix,
    Model,
    Offline,
    Organization,
    PartOf,
    Plugin,
    Quant,
    Revision,
    Topology,
)
from bestiary.cli.parts import parts_of
from bestiary.cli.text import columns, quantity, size
from bestiary.errors import OptionError
from bestiary.identified import Identified, identify_model
from bestiary.opening import choose_loader, weight_headers
from bestiary.packing import make_packing, stated_quantization
from bestiary.parts import check_quant, find_parts, packing_of
from bestiary.protocols import Checkpoint
from bestiary.records import PackingRequest, SourceOptions
from bestiary.registry import Registry, default_registry
from bestiary.weights import Plan

if TYPE_CHECKING:
    from torch import nn


def inspect(
    model: Model,
    revision: Revision = None,
    plugin: Plugin = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    everything: Annotated[bool, typer.Option("--all", help="One line for each parameter, layers not folded.")] = False,
    quant: Quant = None,
    topology: Topology = None,
    organization: Organization = None,
    imatrix: Imatrix = None,
    calibration_file: CalibrationFile = None,
    device: Device = "auto",
    part: PartOf = None,
) -> None:
    """Print a model's identity, its weight plan, its sizes, and what would be fetched.

    With --quant or --topology it also prints what becomes of each weight when the model is packed so.  Of a pipeline
    it prints that of each part.
    """
    registry = default_registry()
    options = SourceOptions(revision=revision, cache_dir=cache_dir, offline=offline)
    identified = identify_model(model, options, registry, plugin, quant)
    request = PackingRequest(None if identified.chosen else quant, topology, organization, imatrix, calibration_file)
    if not identified.architecture.parts:
        _show(identified, registry, request, everything, device)
        return
    typer.echo(columns(_whole(identified), indent=""))
    check_quant(identified.architecture, request.quant)
    for found in find_parts(identified, parts_of(part or ())).values():
        if found.network is None:
            typer.echo(f"\n{found.part.name}: the files of {found.repository.origin}")
        else:
            typer.echo(f"\n{found.part.name}")
            _show(found.network, registry, packing_of(found.part, request), everything, device)


def _show(identified: Identified, registry: Registry, request: PackingRequest, everything: bool, device: str) -> None:
    """One network: identity, files, sizes and plan."""
    from bestiary.building import build_empty, make_plan

    loader, names = choose_loader(identified.repository, registry)
    typer.echo(_identity(identified, loader.name))
    typer.echo(_files(identified, names))
    network = build_empty(identified.architecture, identified.config)
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    with closing(weight_headers(identified, registry)) as checkpoint:
        plan = make_plan(identified.architecture, identified.config, network, checkpoint)
        stored = sum(checkpoint.nbytes(name) for name in checkpoint.names())
        packing = _packing(identified, registry, request, network, plan, checkpoint, device) if request else ""
    count = sum(parameter.numel() for parameter in network.parameters())
    if plan.ties:
        count -= sum(parameter.numel() for name, parameter in network.named_parameters() if name in plan.ties)
    typer.echo(
        f"\nweights      {quantity(count)} parameters; {size(stored)} stored, {size(4 * count)} in float32, "
        f"{size(2 * count)} in bfloat16"
    )
    typer.echo(_plan(plan, shapes, everything))
    if packing:
        typer.echo(packing)


def _packing(
    identified: Identified,
    registry: Registry,
    request: PackingRequest,
    network: nn.Module,
    plan: Plan,
    checkpoint: Checkpoint,
    device: str,
) -> str:
    """What becomes of each weight, weights that fare alike as one line, and the sum."""
    from bestiary.building import fold, needed_bytes
    from bestiary.placement import choose_device, choose_dtype
    from bestiary.pulling import sites

    config, place = identified.config, choose_device(device)
    if stated_quantization(config, identified.repository, registry) is not None:
        raise OptionError("The checkpoint is packed already.", where=config.origin, fix="leave --quant away")
    dtype = choose_dtype("auto", config.get("dtype") or config.text.get("dtype"), checkpoint)
    found = sites(network, plan, checkpoint)
    made = make_packing(replace(request, dtype_bytes=dtype.itemsize), found, config, place, registry)
    assert made is not None
    stored = {site.name: site.stored for site in found}
    alike: dict[tuple[str, str], list[str]] = {}
    for name, packing in made.assigned.items():
        kind = packing.scheme or f"{stored[name]}, as it is"
        alike.setdefault((f"{kind} on {packing.device}" if packing.device else kind, packing.why), []).append(name)
    rows = [
        (title, kind, size(sum(made.assigned[name].nbytes for name in members)), why)
        for (kind, why), names in alike.items()
        for title, members in fold(names)
    ]
    total = needed_bytes(network, plan, checkpoint, dtype, made)
    return f"packing\n{columns(rows)}\nin memory    {size(total)}"


def _whole(identified: Identified) -> list[tuple[str, str]]:
    plugin = identified.plugin
    return [
        ("model", identified.repository.origin),
        ("architecture", f"{identified.architecture.name}, task {identified.architecture.task}"),
        ("plugin", f"{plugin.name} ({plugin.distribution} {plugin.version})"),
    ]


def _identity(identified: Identified, loader: str) -> str:
    config = identified.config.text
    keys = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size")
    sizes = ", ".join(f"{key} {config[key]}" for key in (*keys, "max_position_embeddings") if key in config)
    return columns([*_whole(identified), ("format", loader), ("config", sizes)], indent="")


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
