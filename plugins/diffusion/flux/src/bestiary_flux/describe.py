"""The configuration of a transformer whose file has none, from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bestiary_flux.settings import DEFAULTS

_PREFIX = "model.diffusion_model."


@dataclass(frozen=True)
class Layout:
    """Where a way of naming tensors shows what a configuration says."""

    double: str
    single: str
    latents: str
    """[D, in_channels]."""
    states: str
    """[D, joint_attention_dim]."""
    pooled: str
    """[D, pooled_projection_dim]."""
    out: str
    """[out_channels, D]."""
    guidance: str
    norm: str
    """Of the queries of the first double block [head_dim]."""
    modulation: str
    """Of the first double block; what FLUX.2 and Chroma, which have other names in common, do without."""


ORIGINAL = Layout(
    "double_blocks",
    "single_blocks",
    "img_in.weight",
    "txt_in.weight",
    "vector_in.in_layer.weight",
    "final_layer.linear.weight",
    "guidance_in.in_layer.weight",
    "double_blocks.0.img_attn.norm.query_norm.scale",
    "double_blocks.0.img_mod.lin.weight",
)
DIFFUSERS = Layout(
    "transformer_blocks",
    "single_transformer_blocks",
    "x_embedder.weight",
    "context_embedder.weight",
    "time_text_embed.text_embedder.linear_1.weight",
    "proj_out.weight",
    "time_text_embed.guidance_embedder.linear_1.weight",
    "transformer_blocks.0.attn.norm_q.weight",
    "transformer_blocks.0.norm1.linear.weight",
)


def describe(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The config.json object of tensors of these names and shapes, in either layout; None where they are not FLUX.1.

    How the dimensions of a head turn is seen in no tensor: it is as in the released models, whose heads have 128, and
    unsaid where they have others.
    """
    plain = {name.removeprefix(_PREFIX): shape for name, shape in shapes.items()}
    for layout in (ORIGINAL, DIFFUSERS):
        if (config := _described(layout, plain)) is not None:
            return config
    return None


def _described(layout: Layout, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    matrices = [shapes.get(name, ()) for name in (layout.latents, layout.states, layout.pooled, layout.out)]
    norm, double, single = shapes.get(layout.norm, ()), _count(shapes, layout.double), _count(shapes, layout.single)
    if any(len(shape) != 2 for shape in matrices) or len(norm) != 1 or layout.modulation not in shapes:
        return None
    (dim, channels), (_, joint), (_, pooled), (out, _) = matrices
    if not double or not single or not norm[0] or dim % norm[0]:
        return None
    config = {
        "_class_name": "FluxTransformer2DModel",
        "patch_size": 1,
        "in_channels": channels,
        "out_channels": out,
        "num_layers": double,
        "num_single_layers": single,
        "attention_head_dim": norm[0],
        "num_attention_heads": dim // norm[0],
        "joint_attention_dim": joint,
        "pooled_projection_dim": pooled,
        "guidance_embeds": layout.guidance in shapes,
    }
    if norm[0] == DEFAULTS["attention_head_dim"]:
        config["axes_dims_rope"] = list(DEFAULTS["axes_dims_rope"])
    return config


def _count(shapes: Mapping[str, tuple[int, ...]], blocks: str) -> int:
    """Blocks up to the last that is there, so that one that is absent in between is missed."""
    pattern = re.compile(re.escape(blocks) + r"\.([0-9]{1,6})\..+")
    numbers = [int(found[1]) for name in shapes if (found := pattern.fullmatch(name))]
    return max(numbers, default=-1) + 1
