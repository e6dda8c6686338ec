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
Quant = Annotated[
    str | None,
    typer.Option(help='Pack the weights while they load: a scheme ("q4k"), a mixture ("q4_k_m"), bits, or "auto".'),
]
Topology = Annotated[str | None, typer.Option(metavar="FILE.yml", help="Layers and names with a packing of their own.")]
Organization = Annotated[str | None, typer.Option(help='"moqe" packs experts only.')]
Imatrix = Annotated[str | None, typer.Option(metavar="FILE", help="An importance matrix for the packing.")]
CalibrationFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="A text from which it is told what matters in the packing.")
]
CacheType = Annotated[str, typer.Option(help="What keys and values are kept as: auto, fp8, int8 or int4.")]
PartOf = Annotated[
    list[str] | None,
    typer.Option("--part", metavar="[NAME=]ID", help="Where a part of a pipeline comes from, or all that are missing."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
