"""An answer on the terminal, as it comes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING

import typer

from bestiary.cli.text import escaped

if TYPE_CHECKING:
    from bestiary.generation.completion import Chunk, Usage
    from bestiary.generation.engine.request import Stream


def show(chunks: Stream | Generator[Chunk, None, None], stats: bool) -> Chunk | None:
    """Print an answer as it comes; returns its last chunk, or None where Ctrl-C stopped it."""
    last: Chunk | None = None
    with contextlib.closing(chunks):
        try:
            for last in chunks:
                typer.echo(escaped(last.text), nl=False)
                sys.stdout.flush()
        except KeyboardInterrupt:
            typer.echo("\n[stopped]", err=True)
            return None
    typer.echo()
    if stats and last is not None and last.usage is not None:
        typer.echo(f"[{describe(last.usage)}, {last.finish_reason}]", err=True)
    return last


def describe(usage: Usage) -> str:
    """One line: tokens, speed, and the wait for the first."""
    return (
        f"{usage.completion_tokens} tokens at {usage.tokens_per_second:.1f} tokens/s, "
        f"first after {usage.seconds_to_first_token:.2f} s, prompt of {usage.prompt_tokens}"
    )
