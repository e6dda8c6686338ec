"""What a file of importance says, before its names are those of parameters; and what every format must hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from bestiary.errors import CheckpointError, shown
from bestiary_quant.calibration.importance import Importance
from bestiary_quant.calibration.names import parameter_names, tensor_names

MAX_ENTRIES = 1 << 13
"""Weights in a file; a model of a hundred layers has some thousand."""
MAX_NAME = 1024
"""Bytes."""
CHUNK = 512
"""Tokens of a chunk where a file does not say it: the default of llama.cpp, which guesses the same."""
AGAIN = "fetch the file again, or make the importance matrix again"


@dataclass(frozen=True)
class Entry:
    """One weight: sums [in], [experts, in] or all of these in a row, and the rows of each [1] or [experts]."""

    name: str
    sums: torch.Tensor
    counts: torch.Tensor


def gathered(
    entries: Iterable[Entry],
    origin: str,
    architecture: str | None,
    *,
    chunks: int = 0,
    chunk_size: int = CHUNK,
    datasets: Iterable[str] = (),
) -> Importance:
    """The entries under the names of parameters.  Raises CheckpointError for what cannot be importance."""
    held: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in held:
            raise CheckpointError(f"The weight {shown(entry.name)} comes twice.", where=origin, fix=AGAIN)
        low, high = torch.aminmax(entry.sums)  # neither is a number where one of them is not
        if not (float(low) >= 0 and float(high) < float("inf")):
            raise CheckpointError(
                f"The importance of {shown(entry.name)} has numbers that are negative or not finite.",
                where=origin,
                fix="make the importance matrix again",
            )
        held[entry.name] = entry
    if not held:
        raise CheckpointError("The file has no importance of any weight.", where=origin, fix=AGAIN)
    names = parameter_names(held, architecture)
    values: dict[str, torch.Tensor] = {}
    counts: dict[str, torch.Tensor] = {}
    for stored, name in names.items():
        if name in values:
            raise CheckpointError(f"Two weights, one of them {shown(stored)}, would be {name!r}.", where=origin)
        values[name], counts[name] = held[stored].sums, held[stored].counts
    return Importance(values, counts, chunks, chunk_size, tuple(datasets))


def stored_names(importance: Importance, architecture: str | None) -> Mapping[str, str]:
    """By GGUF name, sorted as llama.cpp sorts them, the parameter."""
    names = tensor_names(importance.values, architecture)
    return dict(sorted((tensor, parameter) for parameter, tensor in names.items()))
