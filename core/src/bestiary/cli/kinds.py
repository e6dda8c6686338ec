"""What `bestiary run` does with a kind of model, and which of its options mean something to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bestiary.errors import OptionError

Given = Mapping[str, Any]
"""The options that stand on the command line: what it calls them, with "_" for "-", and their values."""


@dataclass(frozen=True)
class Kind:
    """A kind of model, as a file beside this one declares it."""

    name: str
    """As messages call it: "an image model"."""
    takes: frozenset[str]
    """Its options, besides those of every model."""
    check: Callable[[str | None, Given], None]
    """(prompt, options): raises OptionError for what would fail later, before a model is loaded."""
    run: Callable[[Any, str | None, Given, bool], None]
    """(pipeline, prompt, options, whether statistics are printed)."""
    makes: str | None = None
    """What goes into the file of `--output`: one of `bestiary.cli.files.ENDINGS`."""
    reads: bool = True
    """Whether what is piped in is its prompt."""


def refuse(given: Given, kind: Kind) -> None:
    """Raises OptionError for options that mean nothing to a kind of model."""
    for name in given:
        if name not in kind.takes:
            raise OptionError(f"--{name.replace('_', '-')} means nothing to {kind.name}.", fix="leave it out")


def chosen(given: Given, *names: str) -> dict[str, Any]:
    """Those of the options that were given."""
    return {name: given[name] for name in names if name in given}
