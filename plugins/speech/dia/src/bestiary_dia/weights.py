"""How checkpoints name and store the tensors: as transformers does, or as the first checkpoint.

Parameters have transformers' names; gate and up are two matrices.  The first checkpoint has matrices as JAX does,
inputs before outputs and heads in dimensions of their own, and an embedding for each codebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bestiary

if TYPE_CHECKING:
    import torch


def _from_one(kernel: torch.Tensor, config: Any) -> torch.Tensor:
    """[in, out...] -> [out, in]."""
    return kernel.flatten(1).t()


def _from_heads(kernel: torch.Tensor, config: Any) -> torch.Tensor:
    """[heads, head, out] -> [out, in]."""
    return kernel.flatten(0, -2).t()


def _joined(tables: torch.Tensor, config: Any) -> torch.Tensor:
    """[codebooks, codes, D] -> [codebooks * codes, D]."""
    return tables.flatten(0, 1)


_OPENING = (
    *(f"self_attention.{name}_proj" for name in "qkv"),
    *(f"cross_attention.{name}_proj" for name in "qkv"),
    "mlp.wi_fused",
)

WEIGHTS = (
    # The first checkpoint.
    *(
        bestiary.map(f"{side}.layers.*.{name}.weight", _from_one)
        for side in ("encoder", "decoder")
        for name in (*_OPENING, "mlp.wo")
    ),
    *(
        bestiary.map(f"{side}.layers.*.{name}.o_proj.weight", _from_heads)
        for side in ("encoder", "decoder")
        for name in ("self_attention", "cross_attention")
    ),
    bestiary.map("decoder.logits_dense.weight", _from_one),
    bestiary.rename("decoder.logits_dense.weight", "logits_dense.weight"),
    bestiary.stack("decoder.embeddings.embed.weight", "decoder.embeddings.#.weight"),
    bestiary.map("decoder.embeddings.embed.weight", _joined),
    bestiary.rename("**.mlp.wi_fused.weight", "**.mlp.gate_up_proj.weight"),
    bestiary.rename("**.mlp.wo.weight", "**.mlp.down_proj.weight"),
    bestiary.rename("encoder.**", "model.encoder.**"),
    bestiary.rename("decoder.**", "model.decoder.**"),
    # Both.
    bestiary.split("**.mlp.gate_up_proj.weight", "**.mlp.gate_proj.weight", "**.mlp.up_proj.weight"),
)
