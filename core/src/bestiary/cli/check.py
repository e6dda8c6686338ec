"""`bestiary check`: are the files whole, and do they fit the architecture?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Annotated

import typer

from bestiary.cli.options import CacheDir, Model, Offline, PartOf, Plugin, Revision
from bestiary.cli.parts import parts_of
from bestiary.cli.text import size
from bestiary.errors import CheckpointError
from bestiary.identified import Identified, identify_model
from bestiary.opening import choose_loader, open_checkpoint, weight_headers
from bestiary.parts import find_parts
from bestiary.progress import bar
from bestiary.protocols import Checkpoint
from bestiary.records import Progress, SourceOptions
from bestiary.registry import Registry, default_registry


def check(
    model: Model,
    revision: Revision = None,
    plugin: Plugin = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    finite: Annotated[bool, typer.Option("--finite", help="Read every tensor and look for NaN and infinity.")] = False,
    part: PartOf = None,
) -> None:
    """Verify the hashes of a model's files and its weight plan, without building it.

    Weights that are not here yet are planned from their headers, and not fetched.
    """
    registry = default_registry()
    with bar() as report:
        options = SourceOptions(revision=revision, cache_dir=cache_dir, offline=offline, progress=report)
        identified = identify_model(model, options, registry, plugin)
        networks = {"": identified}
        if identified.architecture.parts:
            found = find_parts(identified, parts_of(part or ()))
            networks = {name: each.network for name, each in found.items() if each.network is not None}
        for name, network in networks.items():
            if name:
                typer.echo(f"{name} of {network.repository.origin}")
            _check(network, registry, finite, report)


def _check(identified: Identified, registry: Registry, finite: bool, report: Callable[[Progress], None] | None) -> None:
    from bestiary.building import build_empty, make_plan

    repository = identified.repository
    _, names = choose_loader(repository, registry)
    missing = repository.missing(names)
    verified = repository.verify([name for name in repository.files() if name not in repository.missing([name])])
    network = build_empty(identified.architecture, identified.config)
    with closing(weight_headers(identified, registry)) as headers:
        plan = make_plan(identified.architecture, identified.config, network, headers)
    if finite:
        with closing(open_checkpoint(identified, registry, report)) as checkpoint:
            _check_finite(checkpoint, report)
    for name in names:
        state = "not fetched" if name in missing else verified.get(name, "no hash to compare with")
        typer.echo(f"{name}  {size(repository.files()[name])}  {state}")
    typer.echo(
        f"the plan fits {identified.architecture.name}: {len(plan.recipes)} parameters, nothing missing or left over"
    )
    if finite:
        typer.echo("every value is finite")


def _check_finite(checkpoint: Checkpoint, report: Callable[[Progress], None] | None) -> None:
    import torch

    total = sum(checkpoint.nbytes(name) for name in checkpoint.names())
    done = 0
    for name in checkpoint.names():
        tensor = checkpoint.read(name)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise CheckpointError(
                f"The tensor {name} has values that are not finite.",
                where=checkpoint.origin,
                fix="fetch the file again; if it stays so, the checkpoint itself is damaged",
            )
        checkpoint.release()
        done += checkpoint.nbytes(name)
        if report:
            report(Progress("read", done, total, name))
