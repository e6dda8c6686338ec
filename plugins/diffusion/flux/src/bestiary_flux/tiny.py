"""Small configurations that exercise every argument of the network."""

from typing import Any


def _transformer(**changes: Any) -> dict[str, Any]:
    return {
        "_class_name": "FluxTransformer2DModel",
        "patch_size": 1,
        "in_channels": 8,
        "num_layers": 2,
        "num_single_layers": 3,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 24,
        "pooled_projection_dim": 20,
        "guidance_embeds": False,
        "axes_dims_rope": [4, 6, 6],
        **changes,
    }


TRANSFORMER = (
    _transformer(),
    _transformer(guidance_embeds=True, num_attention_heads=3, attention_head_dim=12, axes_dims_rope=[2, 4, 6]),
    # As those that fill a masked picture, or follow a map of depths: they see more than they make.
    _transformer(guidance_embeds=True, in_channels=24, out_channels=8, num_layers=1, num_single_layers=1),
    _transformer(patch_size=2, out_channels=3, num_layers=1),
)
