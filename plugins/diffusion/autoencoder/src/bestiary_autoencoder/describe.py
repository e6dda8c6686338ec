"""The configuration of an autoencoder whose file brings none, from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

_PREFIXES = ("first_stage_model.", "vae.")
_OWN = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "loss.", "model_ema.")
_DOWN = re.compile(r"encoder\.(?:down|down_blocks)\.(\d{1,2})\.(?:block|resnets)\.(\d{1,2})\.conv1\.weight")
_SCALES: dict[int, dict[str, float]] = {
    16: {"scaling_factor": 0.3611, "shift_factor": 0.1159},
    4: {"scaling_factor": 0.18215},
}


def describe(shapes: Shapes) -> dict[str, Any] | None:
    """The config.json object of a file in the original layout or in diffusers', whatever its prefix.

    None where the names are not all an autoencoder's, or where it is none whose scale is known.  Names and shapes do
    not show the scale: 16 latent channels are taken for Flux's, though Stable Diffusion 3 has as many, with the scale
    1.5305 and the shift 0.0609; 4 for those of Stable Diffusion 1 and 2, though SDXL's, whose scale is 0.13025, look
    the same.  Nor do they show the groups of the norms, of which all of these have 32.
    """
    shapes = _bare(shapes)
    if not all(name.startswith(_OWN) for name in shapes):
        return None
    blocks: dict[int, list[int]] = {}
    for name, shape in shapes.items():
        match = _DOWN.fullmatch(name)
        if match and len(shape) == 4:
            blocks.setdefault(int(match[1]), []).append(shape[0])
    conv_in, encoder_in = shapes.get("decoder.conv_in.weight", ()), shapes.get("encoder.conv_in.weight", ())
    conv_out = shapes.get("decoder.conv_out.weight", ())
    if not len(conv_in) == len(encoder_in) == len(conv_out) == 4 or sorted(blocks) != list(range(len(blocks))):
        return None
    # All resolutions have as many layers, each of the same width; another network has other names or fails the plan.
    scale = _SCALES.get(conv_in[1])
    if not blocks or scale is None:
        return None
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": encoder_in[1],
        "out_channels": conv_out[0],
        "down_block_types": ["DownEncoderBlock2D"] * len(blocks),
        "up_block_types": ["UpDecoderBlock2D"] * len(blocks),
        "block_out_channels": [blocks[index][0] for index in range(len(blocks))],
        "layers_per_block": len(blocks[0]),
        "act_fn": "silu",
        "latent_channels": conv_in[1],
        "norm_num_groups": 32,
        **scale,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "mid_block_add_attention": any(".mid.attn_1." in name or ".mid_block.attentions." in name for name in shapes),
    }


def _bare(shapes: Shapes) -> Shapes:
    for prefix in _PREFIXES:
        if shapes and all(name.startswith(prefix) for name in shapes):
            return {name.removeprefix(prefix): shape for name, shape in shapes.items()}
    return shapes
