"""What a GGUF file says of its model, before any weight is fetched and without torch."""

from __future__ import annotations

import logging
from typing import Any

from bestiary.errors import CheckpointError
from bestiary.protocols import Repository
from bestiary.records import Evidence
from bestiary_quant.gguf.companions import choose_companion
from bestiary_quant.gguf.config import hugging_face_config
from bestiary_quant.gguf.eyes import FIX, Companion, UnknownEyes, seeing_config
from bestiary_quant.gguf.parts import Part, close_parts, read_content, read_parts
from bestiary_quant.gguf.selection import files

log = logging.getLogger("bestiary.quant")


def identify(repository: Repository, name: str, mmproj: Any = None) -> Evidence:
    """The architecture and the configuration; `name` may be any .gguf file of the repository.

    Which file counts is decided as for the weights (`selection.files`).  A companion beside it gives the model eyes,
    where a plugin for it is installed: `mmproj` names it, or is "off" (see `choose_companion`).  Of one that is unknown
    and was not asked for a warning tells.  Raises CheckpointError.
    """
    names = files(repository)
    parts = read_parts(repository, names, fetch=False)
    tensors = {tensor: entry for part in parts for tensor, entry in part.header.tensors.items()}
    holders = {tensor: part for part in parts for tensor in part.header.tensors}

    def content(tensor: str) -> bytes:
        return read_content(repository, holders[tensor], tensors[tensor])

    metadata = parts[0].header.metadata
    try:
        config = hugging_face_config(metadata, tensors, content)
        companion, seeing = _with_eyes(repository, parts[0], config, mmproj)
    finally:
        close_parts(parts)
    return Evidence(
        files=tuple(repository.files()),
        config=config if seeing is None else seeing,
        gguf=metadata.architecture,
        weights={} if seeing is None else {seeing["architectures"][0]: (*names, companion)},
        origin=metadata.origin,
    )


def _with_eyes(
    repository: Repository, text: Part, config: dict[str, Any], mmproj: Any
) -> tuple[str, dict[str, Any] | None]:
    """The companion, and the configuration with it; None where there is none that is known."""
    whole: Repository = getattr(repository, "whole", repository)  # a type may have been chosen, which companions lack
    name = choose_companion(whole.files(), mmproj, repository.origin)
    if name is None:
        return "", None
    try:
        (part,) = read_parts(whole, [name], fetch=False)
    except CheckpointError as error:
        raise CheckpointError(error.what, where=error.where, fix=f"{error.fix}; {FIX}" if error.fix else FIX) from error
    try:
        if not part.sees:
            raise UnknownEyes(
                f'This is no companion of a model: its architecture is "{part.header.metadata.architecture}".',
                where=part.header.origin,
                fix=FIX,
            )
        companion = Companion(part.header.metadata, part.header.tensors)
        return name, seeing_config(companion, config, text.header.metadata)
    except UnknownEyes as error:
        if mmproj is not None:
            raise
        log.warning("%s is loaded without eyes: %s (%s)", repository.origin, error.what, name)
        return "", None
    finally:
        close_parts([part])
