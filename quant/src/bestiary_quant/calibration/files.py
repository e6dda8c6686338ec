"""Importance matrices as files, in the three forms in which they are found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from bestiary.errors import CheckpointError, OptionError
from bestiary_quant.calibration import cimatrix, gguf_form, legacy
from bestiary_quant.calibration.importance import Importance
from bestiary_quant.mapped import MappedFile

FORMS: dict[str, ModuleType] = {".gguf": gguf_form, ".imatrix": legacy, ".dat": legacy, ".cimatrix": cimatrix}
"""By ending.  A file that begins as GGUF does is GGUF, whatever it is called, as in llama.cpp."""
MAX_BYTES = 1 << 32


def read_importance(path: str | os.PathLike[str], architecture: str | None = None) -> Importance:
    """What a file says.  `architecture` is `general.architecture` of the model, where it is known.

    Raises CheckpointError for a malformed file, or one that is no importance matrix.
    """
    mapped = MappedFile(path)
    try:
        if mapped.size > MAX_BYTES:
            raise CheckpointError("The file is too large for an importance matrix.", where=mapped.origin)
        form = gguf_form if mapped.buffer[:4] == b"GGUF" else FORMS.get(Path(path).suffix.lower(), legacy)
        if form is gguf_form and mapped.buffer[:4] != b"GGUF":
            form = legacy
        read: Callable[..., Importance] = form.read
        return read(mapped.buffer, mapped.origin, architecture)
    finally:
        mapped.close()


def write_importance(path: str | os.PathLike[str], importance: Importance, architecture: str | None = None) -> None:
    """Write a file in the form that its ending names; an older file is replaced when the new one is whole.

    Raises OptionError for another ending.
    """
    target = Path(path)
    form = FORMS.get(target.suffix.lower())
    if form is None:
        raise OptionError(
            f"An importance matrix cannot be written as {target.name!r}.", fix=f"end the name in {', '.join(FORMS)}"
        )
    write: Callable[[BinaryIO, Importance, str | None], None] = form.write
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            write(file, importance, architecture)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
