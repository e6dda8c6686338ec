"""`bestiary perplexity`: how well a model foretells a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bestiary.cli.options import (
    CalibrationFile,
    Device,
    Dtype,
    Imatrix,
    Model,
    Offline,
    Organization,
    Plugin,
    Quant,
    Revision,
    Topology,
)
from bestiary.errors import OptionError, RequestError
from bestiary.progress import bar
from bestiary.records import Progress


def perplexity(
    model: Model,
    file: Annotated[Path, typer.Argument(help="A text in UTF-8.", exists=True, dir_okay=False)],
    window: Annotated[int, typer.Option(help="Tokens in a window; at most the context.")] = 1024,
    stride: Annotated[int | None, typer.Option(help="From window to window; half a window where left out.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quant: Quant = None,
    topology: Topology = None,
    organization: Organization = None,
    imatrix: Imatrix = None,
    calibration_file: CalibrationFile = None,
    revision: Revision = None,
    plugin: Plugin = None,
    offline: Offline = False,
) -> None:
    """Print the perplexity of a text under a model: lower is better, and equal texts compare models."""
    import bestiary
    from bestiary.generation.perplexity import Perplexity
    from bestiary.generation.perplexity import perplexity as measured

    with bestiary.load(
        model,
        dtype=dtype,
        device=device,
        quant=quant,
        topology=topology,
        organization=organization,
        imatrix=imatrix,
        calibration_file=calibration_file,
        revision=revision,
        plugin=plugin,
        offline=offline,
    ) as pipe:
        window = min(window, pipe.engine.context_length)
        step = stride or max(1, window // 2)
        if window < 2 or not 1 <= step <= window:
            raise OptionError(f"A window of {window} tokens and a stride of {step} do not cover a text.")
        tokens = pipe.tokenize(file.read_text(encoding="utf-8"))
        if len(tokens) < 2:
            raise RequestError("The text has fewer than two tokens.", where=file)
        found = Perplexity(0, 0.0)
        with bar() as report:
            for found in measured(pipe.score, tokens, window, step):
                if report:
                    report(Progress("score", found.tokens, len(tokens) - 1, file.name))
    typer.echo(f"perplexity {found.value:.4f} over {found.tokens} tokens (window {window}, stride {step})")
