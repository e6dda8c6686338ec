"""Names of importance matrices: those of GGUF tensors in files, those of parameters here.

Files do not say of which architecture they are.  The tables of gguf differ in which tensors an architecture has, not in
what a tensor is called; so the first table that knows a name is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bestiary_quant.gguf.names import hugging_face_names

ARCHITECTURES = ("llama", "qwen3", "qwen2moe", "gemma3")
"""Whose tables are asked, after that of the architecture that is known: between them every tensor of a layer."""
_LAYER = re.compile(r"(model\.layers\.)([0-9]{1,9})(\..+)")


def parameter_names(tensors: Iterable[str], architecture: str | None = None) -> dict[str, str]:
    """By GGUF name the parameter; a name that no table knows stays as it is."""
    found = {name: name for name in tensors}
    for table in _tables(architecture):
        unknown = [name for name, parameter in found.items() if name == parameter]
        found.update(hugging_face_names(unknown, table))
    return found


def tensor_names(parameters: Iterable[str], architecture: str | None = None) -> dict[str, str]:
    """By parameter the GGUF name; the opposite of `parameter_names`."""
    from gguf.constants import TENSOR_NAMES

    every = [f"{name.format(bid=0, xid=0)}.weight" for name in TENSOR_NAMES.values()]
    known: dict[str, str] = {}
    for table in _tables(architecture):
        for tensor, parameter in hugging_face_names(every, table).items():
            if tensor != parameter:
                known.setdefault(parameter, tensor)
    made = {}
    for name in parameters:
        layer = _LAYER.fullmatch(name)
        first = f"{layer[1]}0{layer[3]}" if layer else name
        tensor = known.get(first, name)
        made[name] = tensor.replace("blk.0.", f"blk.{layer[2]}.", 1) if layer and first in known else tensor
    return made


def _tables(architecture: str | None) -> list[str]:
    return list(dict.fromkeys((*((architecture,) if architecture else ()), *ARCHITECTURES)))
