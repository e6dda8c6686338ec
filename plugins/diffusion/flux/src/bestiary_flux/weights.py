"""From the names of the original release (double_blocks, single_blocks) to those of diffusers, which the model has.

Names of diffusers pass as they are.  All rules hold on packed weights, for they take or move whole rows: GGUF files of
FLUX.1 have the original names too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import bestiary
from bestiary_flux.settings import Settings

if TYPE_CHECKING:
    import torch

DOUBLE, SINGLE, EMBED = "transformer_blocks.*.", "single_transformer_blocks.*.", "time_text_embed."
_ENDS = (".weight", ".bias")


def _swapped(tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """The original has the shift of the last norm first, diffusers the scale."""
    return tensor.roll(len(tensor) // 2, 0)


def _side_by_side(config: Any) -> list[int]:
    """Rows of q, k, v and the feed-forward block of a single block."""
    dim = Settings.of(config).dim
    return [dim, dim, dim, 4 * dim]


def _both(old: str, new: str) -> Iterator[Any]:
    return (bestiary.rename(old + end, new + end) for end in _ENDS)


def _outer() -> Iterator[Any]:
    yield bestiary.rename("model.diffusion_model.**", "**")
    yield from (bestiary.rows(f"final_layer.adaLN_modulation.1{end}", _swapped) for end in _ENDS)
    for old, new in (
        ("img_in", "x_embedder"),
        ("txt_in", "context_embedder"),
        ("final_layer.adaLN_modulation.1", "norm_out.linear"),
        ("final_layer.linear", "proj_out"),
    ):
        yield from _both(old, new)
    for old, new in (("time_in", "timestep"), ("vector_in", "text"), ("guidance_in", "guidance")):
        yield from _both(f"{old}.in_layer", f"{EMBED}{new}_embedder.linear_1")
        yield from _both(f"{old}.out_layer", f"{EMBED}{new}_embedder.linear_2")


def _double(stream: str, suffix: str, projections: tuple[str, str, str], out: str, norm: str) -> Iterator[Any]:
    """One of the two streams of double blocks."""
    old = f"double_blocks.*.{stream}_"
    yield from _both(f"{old}mod.lin", f"{DOUBLE}norm1{suffix}.linear")
    for end in _ENDS:
        yield bestiary.split(f"{old}attn.qkv{end}", *(f"{DOUBLE}attn.{name}{end}" for name in projections))
    for full, short in (("query", "q"), ("key", "k")):
        yield bestiary.rename(f"{old}attn.norm.{full}_norm.scale", f"{DOUBLE}attn.{norm}_{short}.weight")
    yield from _both(f"{old}attn.proj", f"{DOUBLE}attn.{out}")
    yield from _both(f"{old}mlp.0", f"{DOUBLE}ff{suffix}.net.0.proj")
    yield from _both(f"{old}mlp.2", f"{DOUBLE}ff{suffix}.net.2")


def _single() -> Iterator[Any]:
    old = "single_blocks.*."
    yield from _both(f"{old}modulation.lin", f"{SINGLE}norm.linear")
    for end in _ENDS:
        targets = (f"{SINGLE}{name}{end}" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"))
        yield bestiary.split(f"{old}linear1{end}", *targets, sizes=_side_by_side)
    for full, short in (("query", "q"), ("key", "k")):
        yield bestiary.rename(f"{old}norm.{full}_norm.scale", f"{SINGLE}attn.norm_{short}.weight")
    yield from _both(f"{old}linear2", f"{SINGLE}proj_out")


WEIGHTS = (
    *_outer(),
    *_double("img", "", ("to_q", "to_k", "to_v"), "to_out.0", "norm"),
    *_double("txt", "_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "norm_added"),
    *_single(),
)
