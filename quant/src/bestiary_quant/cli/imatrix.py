"""`bestiary imatrix`: what matters in the weights of a model, measured on a text and kept in a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bestiary.cli.options import CacheDir, Device, Dtype, Model, Offline, Plugin, Revision
from bestiary.errors import OptionError
from bestiary.progress import bar


def imatrix(
    model: Model,
    text: Annotated[Path, typer.Argument(metavar="TEXT", help="A text of the kind that the model will work on.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write: .gguf or .imatrix for llama.cpp, .cimatrix.")
    ],
    chunks: Annotated[int, typer.Option(help="At most so many parts of the text.")] = 128,
    chunk: Annotated[int, typer.Option(help="Tokens of a part.")] = 512,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    revision: Revision = None,
    plugin: Plugin = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
) -> None:
    """Measure on a text how much each column of each weight counts, for --imatrix of other commands."""
    import bestiary
    from bestiary_quant.calibration.files import FORMS, write_importance
    from bestiary_quant.calibration.load import read_tokens
    from bestiary_quant.calibration.text import collect_text

    if output.suffix.lower() not in FORMS:
        raise OptionError(f"{output.name} has no ending that says its form.", fix=f"one of {', '.join(FORMS)}")
    if output.exists() and not force:
        raise OptionError(f"{output} exists already.", fix="--force replaces it")
    with bestiary.load(
        model,
        dtype=dtype,
        device=device,
        cache_tokens=1024,
        revision=revision,
        plugin=plugin,
        cache_dir=cache_dir,
        offline=offline,
    ) as pipe:
        tokens = read_tokens(str(text), pipe.tokenizer.encode)
        with bar() as report:
            network, bos = pipe.model, pipe.config.text.get("bos_token_id")
            found = collect_text(network, tokens, chunk, chunks=chunks, bos=bos, progress=report)
        write_importance(output, replace(found, datasets=(text.name,)), pipe.identified.evidence.gguf)
    typer.echo(f"{output}  {len(found.values)} weights, {found.chunks} chunks of {chunk} tokens")
