"""The operation `attend`: keys and values into the blocks of a cache, and attention over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bestiary.nn.batch import AttentionSpec
from bestiary_kernels.triton.devices import on_device_of, takes

if TYPE_CHECKING:
    from bestiary.generation.engine.paged_attention import AttentionStep
    from bestiary.generation.engine.paged_memory import LayerBlocks

WIDEST = 256
"""Numbers of a head of which tiles fit into the shared memory of the GPUs that the kernels are compiled for."""


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None,
    blocks: LayerBlocks,
    step: AttentionStep,
    spec: AttentionSpec,
    sinks: torch.Tensor | None,
) -> torch.Tensor | None:
    """`bestiary.generation.engine.paged_attention.attend_blocks`; None for forms that the kernels do not know.

    The tables that the kernels read are of blocks of one slot: those that a step has seen, wherever its window begins.
    """
    memories = blocks.memories
    known = v is not None and spec.latent is None and len(memories) == 2 and spec.head_dim <= WIDEST
    if not known or step.runs or not takes(q, *memories) or (step.seen is not None and step.lengths is None):
        return None
    assert v is not None
    blocks.write(step.slots, k, v)
    told = {"size": 1, "scale": spec.scale, "softcap": spec.softcap, "sinks": sinks}
    with on_device_of(q):
        if not step.prompts and step.seen is not None:
            return _decoded(q, memories, step.seen, step.lengths, told)
        made = torch.empty_like(q, memory_format=torch.contiguous_format)
        for row, count, seen in step.prompts:
            made[row : row + count] = _prompt(q[row : row + count], memories, seen, {**told, "window": spec.window})
        if step.rows is not None and step.seen is not None:
            made[step.rows] = _decoded(q[step.rows], memories, step.seen, step.lengths, told)
    return made


def _decoded(
    q: torch.Tensor,
    memories: tuple[torch.Tensor, ...],
    seen: torch.Tensor,
    lengths: torch.Tensor | None,
    told: dict[str, Any],
) -> torch.Tensor:
    """q [N, H, D]; what each has seen is within its window already."""
    from bestiary_kernels.triton.attention_decode import decode_attention

    assert lengths is not None
    keys, values = memories
    return decode_attention(q, keys, values, seen, lengths, **told)


def _prompt(
    q: torch.Tensor, memories: tuple[torch.Tensor, ...], seen: torch.Tensor, told: dict[str, Any]
) -> torch.Tensor:
    """q [C, H, D] of the last of the positions that were seen."""
    from bestiary_kernels.triton.attention_prefill import prefill_attention

    # Filled on the device: a copy would wait for it.
    start, count, length = (torch.full((1,), number, device=q.device) for number in (0, len(q), len(seen)))
    keys, values = memories
    return prefill_attention(q, keys, values, seen[None], start, count, length, longest=len(q), **told)
