"""The operation `attend`: keys and values into the blocks of a cache, and attention over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bestiary.nn.batch import AttentionSpec
from bestiary_kernels.cpu import attention, cache
from bestiary_kernels.cpu.attention import Heads, View
from bestiary_kernels.cpu.cache import Memory
from bestiary_kernels.cpu.library import library
from bestiary_kernels.cpu.panels import NUMBERS

if TYPE_CHECKING:
    from bestiary.generation.engine.paged_attention import AttentionStep
    from bestiary.generation.engine.paged_memory import LayerBlocks

WIDEST = 512
"""Numbers of a head that the native code has room for."""


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None,
    blocks: LayerBlocks,
    step: AttentionStep,
    spec: AttentionSpec,
    sinks: torch.Tensor | None,
) -> torch.Tensor | None:
    """`bestiary.generation.engine.paged_attention.attend_blocks`; None for forms that the native code does not know."""
    memories = _memories(blocks)
    if memories is None or v is None or step.runs or spec.latent is not None or spec.head_dim > WIDEST:
        return None
    if not all(_heads_beside(x) for x in (k, v)) or q.stride(2) != 1:
        return None
    native, threads = library(), torch.get_num_threads()
    cache.write(native, k, v, step.slots, *memories, threads)
    heads = Heads(spec.kv_heads, spec.scale, spec.window, spec.softcap, sinks)
    y = torch.empty(q.shape, dtype=q.dtype)
    for view in _views(step):
        arguments, kept = attention.attention_arguments(q, *memories, heads, view, y, threads)
        native.call(attention.ATTENTION, arguments, threads)
        del kept
    return y


def _views(step: AttentionStep) -> list[View]:
    views = [
        View(seen[None], torch.tensor([len(seen)]), count, torch.tensor([row])) for row, count, seen in step.prompts
    ]
    if step.seen is not None and step.lengths is not None:
        views.append(View(step.seen, step.lengths, 1, step.rows))
    return views


def _memories(blocks: LayerBlocks) -> tuple[Memory, Memory] | None:
    """The keys and the values, where they lie in a form that the native code knows."""
    found = blocks.memories
    if len(found) == 2 and found[0].dtype in NUMBERS:
        return Memory(found[0]), Memory(found[1])
    if len(found) == 4 and found[0].dtype == torch.int8:
        return Memory(found[0], found[1]), Memory(found[2], found[3])
    return None


def _heads_beside(x: torch.Tensor) -> bool:
    return x.stride(2) == 1 and (x.shape[1] == 1 or x.stride(1) == x.shape[2])
