"""`bestiary uqff`: what a folder of UQFF files holds, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bestiary.cli.options import Json
from bestiary.cli.text import columns, size


def uqff(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", exists=True, file_okay=False)],
    strict: Annotated[bool, typer.Option("--strict", help="Fail where anything is wrong.")] = False,
    as_json: Json = False,
) -> None:
    """Print the models of a folder, their layers by type, and every problem; reads no weight."""
    from bestiary_quant.uqff.report import report

    found = report(folder, strict=strict)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
        return
    rows = [
        (
            model.label,
            size(model.nbytes),
            ", ".join(f"{count} {kind}" for kind, count in (model.counts or {}).items()),
            f"{model.plain} plain tensors",
        )
        for model in found.models
    ]
    typer.echo(columns(rows, indent=""))
    for problem in found.problems:
        typer.echo(f"problem: {problem}")
