"""`bestiary perplexity`: how well a model foretells a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

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
    file: Annotated[
        Path,
        typer.Argument(help="A text in UTF-8, or conversations in JSON lines.", exists=True, dir_okay=False),
    ],
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
    """Print the perplexity of a text under a model: lower is better, and equal texts compare models.

    Of a file that ends in .jsonl, each line an object with messages of which the last is the answer, the answers count.
    """
    import bestiary
    from bestiary.generation.perplexity import Perplexity, answers_perplexity
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
        found = Perplexity(0, 0.0)
        if file.suffix == ".jsonl":
            pairs = [_pair(pipe, line, f"{file}, line {number}") for number, line in _lines(file)]
            total = sum(len(answer) for _, answer in pairs)
            steps, how = answers_perplexity(pipe.score, pairs), "answers"
        else:
            window = min(window, pipe.engine.context_length)
            step = stride or max(1, window // 2)
            if window < 2 or not 1 <= step <= window:
                raise OptionError(f"A window of {window} tokens and a stride of {step} do not cover a text.")
            tokens = pipe.tokenize(file.read_text(encoding="utf-8"))
            steps, total = measured(pipe.score, tokens, window, step), len(tokens) - 1
            how = f"window {window}, stride {step}"
        if total < 1:
            raise RequestError("The text has fewer than two tokens.", where=file)
        with bar() as report:
            for found in steps:
                if report:
                    report(Progress("score", found.tokens, total, file.name))
    typer.echo(f"perplexity {found.value:.4f} over {found.tokens} tokens ({how})")


def _lines(file: Path) -> list[tuple[int, str]]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _pair(pipe: Any, line: str, where: str) -> tuple[list[int], list[int]]:
    """The tokens of a conversation up to its answer, and those of the answer."""
    try:
        messages = json.loads(line)["messages"]
        answer = messages[-1]["content"]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise RequestError('A line is no object with "messages".', where=where) from error
    if messages[-1].get("role") != "assistant" or not isinstance(answer, str) or not answer:
        raise RequestError("The last message is no answer in text.", where=where)
    return pipe.tokenize_chat(messages[:-1]), pipe.tokenizer.encode_after(answer, allow_special=False)
