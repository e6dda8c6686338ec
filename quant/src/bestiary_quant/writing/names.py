"""From parameter names, which are those of Hugging Face's Llama, to the tensor names of GGUF.

Through the tables of the gguf package, as a converter asks them; and a name counts only if the reader leads it back
(`bestiary_quant.gguf.names`).
"""

from __future__ import annotations

from collections.abc import Iterable

from bestiary.errors import OptionError
from bestiary_quant.gguf.names import hugging_face_names

_SUFFIXES = (".weight", ".bias")


def gguf_names(names: Iterable[str], architecture: str, layers: int) -> dict[str, str]:
    """The tensor of every parameter.  Raises OptionError for one that files of the architecture have no name for."""
    from gguf.constants import MODEL_ARCH_NAMES
    from gguf.tensor_mapping import TensorNameMap

    class Table(TensorNameMap):
        # The table of one architecture (arctic) writes into that of the class.
        block_mappings_cfg = dict(TensorNameMap.block_mappings_cfg)

    code = next(code for code, name in MODEL_ARCH_NAMES.items() if name == architecture)
    table = Table(code, layers)
    made: dict[str, str] = {}
    for name in names:
        stored = table.get_name(name, try_suffixes=_SUFFIXES)
        if stored is not None and not stored.endswith(_SUFFIXES):
            stored += ".weight"  # stacked experts, whose parameters have none
        if stored is None or hugging_face_names([stored], architecture).get(stored) != name:
            raise OptionError(
                f"GGUF files of the architecture {architecture} have no name for the weight {name}.",
                fix="write the model as safetensors, with --to safetensors:SCHEME",
            )
        made[name] = stored
    return made
