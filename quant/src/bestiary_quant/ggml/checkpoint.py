"""A model stored as llama.cpp did before GGUF, under the names of Hugging Face: a `bestiary.protocols.Checkpoint`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from bestiary.errors import CheckpointError
from bestiary.protocols import Repository
from bestiary_quant.ggml.header import GgmlHeader, parse
from bestiary_quant.ggml.versions import NIBBLES, Q4_0_F32, Q4_1_F32
from bestiary_quant.gguf.checkpoint import GgufCheckpoint
from bestiary_quant.gguf.header import Header
from bestiary_quant.gguf.metadata import Metadata
from bestiary_quant.gguf.parts import Part
from bestiary_quant.mapped import MappedFile

if TYPE_CHECKING:
    import torch

    from bestiary_quant.blocks.types import BlockType

MAX_SCALE = 1e6
"""Of blocks in the oldest files; scales of real weights are below 1."""
MODEL: Mapping[str, str] = MappingProxyType(
    {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
)
LAYER: Mapping[str, str] = MappingProxyType(
    {
        "attention_norm": "input_layernorm",
        "attention.wq": "self_attn.q_proj",
        "attention.wk": "self_attn.k_proj",
        "attention.wv": "self_attn.v_proj",
        "attention.wo": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
    }
)
_LAYER_NAME = re.compile(r"layers\.([0-9]{1,4})\.(.+)\.(weight|bias)")
_FREQUENCIES = "rope.freqs"
"""The end of names of tensors that follow from the configuration, and are no weights."""


class GgmlCheckpoint(GgufCheckpoint):
    """The tensors of one file.  What it reads and packs is as of GGUF; the oldest blocks are rearranged in a copy.

    The rows of queries and keys are those of Meta, neighbours turned together, as in GGUF files of a Llama: converters
    brought those of Hugging Face back into this order (`permute` of convert.py), so the rules for GGUF apply.
    """

    gguf = "llama"

    def __init__(self, header: GgmlHeader, mapped: MappedFile) -> None:
        self.origin = header.origin
        self.config = MappingProxyType({})
        self.header = header
        bare = Header(0, Metadata(b"", {}, header.origin), header.tensors, header.origin)
        part = Part(header.origin, bare, mapped)
        self._parts, self._open = (part,), True
        names = hugging_face_names(header.tensors)
        self._places = {name: (part, header.tensors[stored]) for stored, name in names.items()}
        if len(self._places) != len(names):
            raise CheckpointError("Two tensors would have one name.", where=header.origin)

    def _bytes(self, name: str) -> torch.Tensor:
        data, kind = super()._bytes(name), self._entry(name).kind
        first = NIBBLES.get(kind)
        if first is None or not self.header.version.paired:
            return data
        from bestiary_quant.ggml.blocks import halved

        blocks = data.view(-1, kind.nbytes)
        self._check_scales(name, kind, blocks)
        return halved(blocks, first).view(-1)

    def _check_scales(self, name: str, kind: BlockType, blocks: torch.Tensor) -> None:
        """The first programs put all scales of a row before its numbers; nothing in their files says so."""
        if self.header.version.scored or kind not in (Q4_0_F32, Q4_1_F32):
            return
        import torch

        scales = blocks[:, :4].contiguous().view(torch.float32)
        if not bool((scales.abs() <= MAX_SCALE).all()):
            raise CheckpointError(
                f"The tensor {name!r} has scales that are no scales of weights: its blocks are of a layout from before "
                "March 2023, or damaged.",
                where=self.origin,
                fix="take a newer file of the same model",
            )


def hugging_face_names(names: Mapping[str, object]) -> dict[str, str]:
    """The tensors that are weights, each with its name in a Hugging Face checkpoint; a strange one keeps its own."""
    found = {}
    for stored in names:
        if stored.endswith(_FREQUENCIES):
            continue
        base, _, suffix = stored.rpartition(".")
        layer = _LAYER_NAME.fullmatch(stored)
        if base in MODEL:
            found[stored] = f"{MODEL[base]}.{suffix}"
        elif layer is not None and layer[2] in LAYER:
            found[stored] = f"model.layers.{layer[1]}.{LAYER[layer[2]]}.{layer[3]}"
        else:
            found[stored] = stored
    return found


def read_file(repository: Repository, name: str) -> tuple[GgmlHeader, MappedFile]:
    """One file, fetched, mapped and parsed; the caller closes it.  Raises CheckpointError."""
    if sys.byteorder != "little":
        raise CheckpointError("The file is little-endian, and this machine is not.", where=repository.origin)
    if name not in repository.files():
        raise CheckpointError(f"There is no file {name!r}.", where=repository.origin)
    origin = f"{repository.origin}: {name}"
    mapped = MappedFile(repository.path(name), origin)
    try:
        return parse(mapped.buffer, origin), mapped
    except BaseException:
        mapped.close()
        raise


def open(repository: Repository, names: tuple[str, ...]) -> GgmlCheckpoint:
    """Map the file and check its header; reads no tensor.  Raises CheckpointError."""
    if len(names) != 1:
        raise CheckpointError(f"{len(names)} files were named; a model of this format is one.", where=repository.origin)
    header, mapped = read_file(repository, names[0])
    try:
        return GgmlCheckpoint(header, mapped)
    except BaseException:
        mapped.close()
        raise


def open_header(repository: Repository, names: tuple[str, ...]) -> GgmlCheckpoint:
    """The same: shapes stand between the data, so that there is no header to look at without the file."""
    return open(repository, names)
