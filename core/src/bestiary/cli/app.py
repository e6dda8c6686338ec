"""The typer application to which the core and the plugins add their subcommands."""

from typing import Annotated

import typer

import bestiary


def make_app() -> typer.Typer:
    """An application without subcommands yet; its options hold for all of them."""
    app = typer.Typer(
        help="Load any model whose architecture plugin is installed.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
        ] = False,
        verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
        traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error arose.")] = False,
    ) -> None:
        """Read by `bestiary.cli.invoke` before the application starts; declared here for the help text."""

    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bestiary {bestiary.__version__}")
        raise typer.Exit
