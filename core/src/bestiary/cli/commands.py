"""The core's own subcommands, added like any plugin's."""

import typer

from bestiary.cli.bench import bench
from bestiary.cli.check import check
from bestiary.cli.doctor import doctor
from bestiary.cli.inspect import inspect
from bestiary.cli.perplexity import perplexity
from bestiary.cli.plugins import plugins
from bestiary.cli.run import run


def add_commands(cli: typer.Typer) -> None:
    for command in (run, inspect, check, plugins, doctor, perplexity, bench):
        cli.command()(command)
