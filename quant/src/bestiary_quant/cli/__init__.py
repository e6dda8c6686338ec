"""Subcommands of `bestiary` that come with this package."""

from __future__ import annotations

import typer

from bestiary_quant.cli.imatrix import imatrix
from bestiary_quant.cli.quantize import quantize
from bestiary_quant.cli.uqff import uqff


def add_commands(cli: typer.Typer) -> None:
    """For the hook `bestiary_commands`."""
    cli.command()(quantize)
    cli.command()(imatrix)
    cli.command()(uqff)
