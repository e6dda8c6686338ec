"""Options that several subcommands share."""

from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(metavar="ID", help='A hub id, a local folder or weight file, or "demo".')]
Revision = Annotated[str | None, typer.Option(help="A branch, tag or commit of the hub repository.")]
Plugin = Annotated[str | None, typer.Option(help="The plugin or distribution that decides a contested model.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use what is in the cache; send nothing.")]
CacheDir = Annotated[str | None, typer.Option(help="Where downloads lie.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
