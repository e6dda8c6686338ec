"""What a GGUF file says of its model, before any weight is fetched and without torch."""

from __future__ import annotations

from bestiary.protocols import Repository
from bestiary.records import Evidence
from bestiary_quant.gguf.config import hugging_face_config
from bestiary_quant.gguf.parts import close_parts, read_content, read_parts
from bestiary_quant.gguf.selection import files


def identify(repository: Repository, name: str) -> Evidence:
    """The architecture and the configuration; `name` may be any .gguf file of the repository.

    Which file counts is decided as for the weights (`selection.files`).  Raises CheckpointError.
    """
    parts = read_parts(repository, files(repository), fetch=False)
    tensors = {tensor: entry for part in parts for tensor, entry in part.header.tensors.items()}
    holders = {tensor: part for part in parts for tensor in part.header.tensors}

    def content(tensor: str) -> bytes:
        return read_content(repository, holders[tensor], tensors[tensor])

    metadata = parts[0].header.metadata
    try:
        config = hugging_face_config(metadata, tensors, content)
    finally:
        close_parts(parts)
    return Evidence(
        files=tuple(repository.files()),
        config=config,
        gguf=metadata.architecture,
        origin=metadata.origin,
    )
