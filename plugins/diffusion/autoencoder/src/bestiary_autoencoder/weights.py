"""How checkpoints name the tensors: as diffusers does or once did, or as CompVis and Black Forest Labs.

Parameters have diffusers' present names.  The original code numbers a resolution alike in the encoder and the decoder,
so the decoder counts backwards: `decoder.up.3` is diffusers' `decoder.up_blocks.0` where there are four.
"""

from typing import TYPE_CHECKING, Any

import bestiary
from bestiary.weights import Rule

if TYPE_CHECKING:
    import torch

BLOCKS = 4
"""Resolutions of every published Stable Diffusion and Flux autoencoder."""

_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_FIRST = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def rules(blocks: int = BLOCKS) -> tuple[Rule, ...]:
    """The weight map; `blocks` is how many resolutions a checkpoint in the original layout has."""
    attention = "**.mid_block.attentions.0"
    return (
        bestiary.rename("first_stage_model.**", "**"),
        bestiary.rename("vae.**", "**"),
        # What training leaves in the files: the losses' own networks, and the counters of averaged weights.
        bestiary.drop("loss.**"),
        bestiary.drop("model_ema.**"),
        bestiary.rename("encoder.down.*.block.**", "encoder.down_blocks.*.resnets.**"),
        bestiary.rename("encoder.down.*.downsample.**", "encoder.down_blocks.*.downsamplers.0.**"),
        *(rule for block in range(blocks) for rule in _up(block, blocks - 1 - block)),
        bestiary.rename("*.mid.block_1.**", "*.mid_block.resnets.0.**"),
        bestiary.rename("*.mid.block_2.**", "*.mid_block.resnets.1.**"),
        bestiary.rename("**.nin_shortcut.*", "**.conv_shortcut.*"),
        bestiary.rename("*.norm_out.*", "*.conv_norm_out.*"),
        *(
            bestiary.rename(f"*.mid.attn_1.{old}.*", f"*.mid_block.attentions.0.{new}.*")
            for old, new in _ATTENTION.items()
        ),
        *(bestiary.rename(f"{attention}.{old}.*", f"{attention}.{new}.*") for old, new in _FIRST.items()),
        *(bestiary.map(f"{attention}.{name}.weight", matrix) for name in ("to_q", "to_k", "to_v", "to_out.0")),
    )


def _up(old: int, new: int) -> tuple[Rule, ...]:
    return (
        bestiary.rename(f"decoder.up.{old}.block.**", f"decoder.up_blocks.{new}.resnets.**"),
        bestiary.rename(f"decoder.up.{old}.upsample.**", f"decoder.up_blocks.{new}.upsamplers.0.**"),
    )


def matrix(weight: "torch.Tensor", config: Any = None) -> "torch.Tensor":
    """A convolution that looks at one pixel [O, I, 1, 1] or [O, I, 1] is a matrix [O, I]; a matrix stays."""
    return weight.reshape(weight.shape[:2])
